//! All answers that are not a result: status codes, their bodies, and which refusal gets which.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postledger_events::Refusal;
use serde::Serialize;

use crate::openapi::Describe;
use crate::port::{ComposeFault, ExecuteError, LoginError, SendError, Unavailable};

/// Wait before trying again when too much is being worked on.
const RETRY_BUSY_S: u64 = 1;
/// Wait before trying again when somebody has to act first.
const RETRY_STOPPED_S: u64 = 30;

/// Why a webapi request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFound,
    /// With the methods there are, for people.
    MethodNotAllowed(&'static str),
    CrossSite,
    Unauthorized(&'static str),
    /// The credentials are right, and not good for this.
    Forbidden(String),
    /// The proxy does not say who the client is.
    NoClient,
    TooManyAttempts {
        retry_after_s: u64,
    },
    /// The request is at fault: 400 and an error object.
    Request(Code, String),
    /// The Idempotency-Key was used with another request.
    IdempotencyMismatch(String),
    IdempotencyInFlight,
    /// We are at fault.
    Internal(String),
    /// Nothing can be accepted now.
    Unavailable {
        why: String,
        retry_after_s: u64,
    },
}

/// The contract's error codes for requests that cannot be done as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Describe)]
#[serde(rename_all = "camelCase")]
#[describe(name = "WebapiCode")]
pub enum Code {
    Protocol,
    Server,
    User,
    Error,
    BadAddress,
    MissingBody,
    MultipleFrom,
    BadFrom,
    DomainDisabled,
    NoRecipients,
    MessageLimitReached,
    RecipientLimitReached,
    MessageTooLarge,
    #[serde(rename = "malformedMessageID")]
    MalformedMessageId,
    SentOverQuota,
    IdempotencyMismatch,
    IdempotencyInFlight,
}

impl Fault {
    pub fn protocol(message: impl Into<String>) -> Fault {
        Fault::Request(Code::Protocol, message.into())
    }

    pub fn user(message: impl Into<String>) -> Fault {
        Fault::Request(Code::User, message.into())
    }

    pub fn busy() -> Fault {
        Fault::from(Unavailable::Busy)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        match self {
            Fault::NotFound => text(StatusCode::NOT_FOUND, "404 page not found"),
            Fault::MethodNotAllowed(message) => text(StatusCode::METHOD_NOT_ALLOWED, message),
            Fault::CrossSite => text(StatusCode::FORBIDDEN, "403 - forbidden - request was caused by another site"),
            Fault::Unauthorized(message) => {
                let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=webapi")];
                (challenge, text(StatusCode::UNAUTHORIZED, message)).into_response()
            }
            Fault::Forbidden(why) => text(StatusCode::FORBIDDEN, &format!("403 - forbidden - {why}")),
            Fault::NoClient => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "500 - internal server error - no client address in x-forwarded-for",
            ),
            Fault::TooManyAttempts { retry_after_s } => {
                retry_after(retry_after_s, text(StatusCode::TOO_MANY_REQUESTS, "429 - too many auth attempts"))
            }
            Fault::Request(code, message) => error(StatusCode::BAD_REQUEST, code, &message),
            Fault::IdempotencyMismatch(why) => error(StatusCode::UNPROCESSABLE_ENTITY, Code::IdempotencyMismatch, &why),
            Fault::IdempotencyInFlight => error(
                StatusCode::CONFLICT,
                Code::IdempotencyInFlight,
                "a request with this Idempotency-Key is being worked on; ask again for its outcome",
            ),
            // Clients of the webapi read the code of a 400 alone (contract 1.5).
            Fault::Internal(why) => error(StatusCode::BAD_REQUEST, Code::Server, &why),
            Fault::Unavailable { why, retry_after_s } => {
                retry_after(retry_after_s, error(StatusCode::SERVICE_UNAVAILABLE, Code::Server, &why))
            }
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let message = refusal.to_string();
        let code = match refusal {
            Refusal::BadFrom => Code::BadFrom,
            Refusal::DomainDisabled => Code::DomainDisabled,
            Refusal::NoRecipients => Code::NoRecipients,
            Refusal::MessageLimit => Code::MessageLimitReached,
            Refusal::RecipientLimit => Code::RecipientLimitReached,
            Refusal::OverQuota { .. } => Code::SentOverQuota,
            Refusal::Invalid(_)
            | Refusal::CutOff { .. }
            | Refusal::TooManyRecipients
            | Refusal::FutureReleaseTooFar => Code::User,
            Refusal::NoSuch(_)
            | Refusal::Exists(_)
            | Refusal::InUse(_)
            | Refusal::Conflict(_)
            | Refusal::AccountGoing(_) => Code::Error,
            Refusal::IdempotencyMismatch => return Fault::IdempotencyMismatch(message),
            Refusal::StaleAttempt(_) | Refusal::Damaged(_) => Code::Server,
        };
        Fault::Request(code, message)
    }
}

impl From<ExecuteError> for Fault {
    fn from(error: ExecuteError) -> Fault {
        match error {
            ExecuteError::Refused(refusal) => refusal.into(),
            ExecuteError::InFlight => Fault::IdempotencyInFlight,
            ExecuteError::Unavailable(why) => why.into(),
        }
    }
}

impl From<SendError> for Fault {
    fn from(error: SendError) -> Fault {
        match error {
            SendError::Refused(refusal) => refusal.into(),
            SendError::Compose(fault, message) => Fault::Request(fault.into(), message),
            SendError::InFlight => Fault::IdempotencyInFlight,
            SendError::Unavailable(why) => why.into(),
        }
    }
}

impl From<ComposeFault> for Code {
    fn from(fault: ComposeFault) -> Code {
        match fault {
            ComposeFault::MissingBody => Code::MissingBody,
            ComposeFault::User => Code::User,
            ComposeFault::MalformedMessageId => Code::MalformedMessageId,
            ComposeFault::TooLarge => Code::MessageTooLarge,
        }
    }
}

impl From<Unavailable> for Fault {
    fn from(unavailable: Unavailable) -> Fault {
        match unavailable {
            Unavailable::Busy => {
                Fault::Unavailable { why: "too busy; try again".to_owned(), retry_after_s: RETRY_BUSY_S }
            }
            Unavailable::Stopped(why) => Fault::Unavailable { why, retry_after_s: RETRY_STOPPED_S },
        }
    }
}

impl From<LoginError> for Fault {
    fn from(error: LoginError) -> Fault {
        match error {
            LoginError::BadCredentials => Fault::Unauthorized(BAD_CREDENTIALS),
            LoginError::Disabled => Fault::Unauthorized("401 - unauthorized - login is disabled for this account"),
            LoginError::TooMany { retry_after_s } => Fault::TooManyAttempts { retry_after_s },
            LoginError::Unavailable(why) => Fault::Unavailable { why, retry_after_s: RETRY_BUSY_S },
        }
    }
}

impl From<postledger_projections::Error> for Fault {
    fn from(error: postledger_projections::Error) -> Fault {
        Refusal::Damaged(error.to_string()).into()
    }
}

/// The same whether there were credentials or not.
pub const BAD_CREDENTIALS: &str = "401 - unauthorized - use http basic auth with email address as username";

/// A line of plain text.
pub fn text(status: StatusCode, message: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{message}\n")).into_response()
}

/// A JSON object and a line end, as the webapi answers.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut bytes = serde_json::to_vec(body).expect("response types have string keys only");
    bytes.push(b'\n');
    (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], bytes).into_response()
}

/// Exactly two keys: clients refuse others.
#[derive(Serialize, Describe)]
#[serde(rename_all = "PascalCase")]
#[describe(name = "WebapiError")]
pub struct ErrorBody<'a> {
    code: Code,
    message: &'a str,
}

fn error(status: StatusCode, code: Code, message: &str) -> Response {
    json(status, &ErrorBody { code, message })
}

fn retry_after(seconds: u64, mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_in_the_contract() {
        let check = |code: Code, expect: &str| assert_eq!(serde_json::to_value(code).unwrap(), expect);
        check(Code::Protocol, "protocol");
        check(Code::BadAddress, "badAddress");
        check(Code::MalformedMessageId, "malformedMessageID");
        check(Code::SentOverQuota, "sentOverQuota");
        check(Code::IdempotencyInFlight, "idempotencyInFlight");
    }

    #[test]
    fn statuses() {
        let check = |fault: Fault, status: u16, retry: Option<&str>| {
            let response = fault.into_response();
            let retry_after = response.headers().get("retry-after").map(|v| v.to_str().unwrap());
            assert_eq!((response.status().as_u16(), retry_after), (status, retry));
        };
        check(LoginError::BadCredentials.into(), 401, None);
        check(LoginError::TooMany { retry_after_s: 60 }.into(), 429, Some("60"));
        check(Unavailable::Busy.into(), 503, Some("1"));
        check(Unavailable::Stopped("disk full".to_owned()).into(), 503, Some("30"));
        check(Refusal::IdempotencyMismatch.into(), 422, None);
        check(SendError::InFlight.into(), 409, None);
        check(Refusal::BadFrom.into(), 400, None);
        check(Fault::NoClient, 500, None);
    }
}
