//! Why a request has no result: every status code of the native API, as problem details (RFC 9457).

use std::any::Any;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postledger_events::Refusal;
use postledger_events::id::Seq;
use serde::{Deserialize, Serialize};

use crate::openapi::{Answer, Content, Describe, Operation, Output, Schemas};
use crate::port::{ExecuteError, LoginError, Unavailable};

const MEDIA_TYPE: &str = "application/problem+json";
/// Wait before trying again when too much is being worked on.
const RETRY_BUSY_S: u64 = 1;
/// Wait before trying again when somebody has to act first.
const RETRY_STOPPED_S: u64 = 30;

/// What is wrong, and for whom it is to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    detail: String,
    retry_after_s: Option<u64>,
    last_common: Option<Seq>,
}

/// Kinds of problems, for programs. With the status they tell all that a program can react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "ProblemCode")]
pub enum Code {
    /// The request cannot be read.
    Malformed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    TooLarge,
    /// It exists already, is in use, or is going away.
    Conflict,
    /// The request can be read and makes no sense.
    Invalid,
    TooMany,
    Unavailable,
    /// A fault of the program or its data.
    Internal,
}

/// The body of a problem (RFC 9457 §3.1), with one member more: `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "Problem")]
pub struct Details {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: Code,
    pub detail: String,
    /// With a cursor beyond a cut: the last record that the ledger it was read from and this one both have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_common: Option<Seq>,
}

impl Problem {
    fn new(status: StatusCode, code: Code, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), retry_after_s: None, last_common: None }
    }

    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, Code::NotFound, detail)
    }

    pub fn method_not_allowed() -> Problem {
        let detail = "this method is not for this address; the Allow header says which are";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail)
    }

    /// A cursor that another branch of this ledger gave out.
    pub fn cut_off(cursor: Seq, common: Seq) -> Problem {
        let detail = Refusal::CutOff { seq: cursor, last_common: common }.to_string();
        Problem { last_common: Some(common), ..Problem::new(StatusCode::CONFLICT, Code::Conflict, detail) }
    }

    pub fn too_many(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::TooMany, detail).after(RETRY_STOPPED_S)
    }

    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, Code::Conflict, detail)
    }

    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, detail)
    }

    /// A request that could not be taken apart, with the status that was found for it.
    pub fn rejected(status: StatusCode, detail: impl Into<String>) -> Problem {
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            StatusCode::UNPROCESSABLE_ENTITY => Code::Invalid,
            _ if status.is_server_error() => Code::Internal,
            _ => Code::Malformed,
        };
        Problem::new(status, code, detail)
    }

    /// What it says, for a list of several.
    pub fn told(&self) -> (Code, &str) {
        (self.code, &self.detail)
    }

    /// Whether the next request would have it as well, whatever it asks for.
    pub fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }

    fn details(self) -> Details {
        Details {
            // RFC 9457 §4.2.1: with "about:blank" the title is the status phrase; `code` tells the kinds apart.
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            last_common: self.last_common,
        }
    }

    fn after(self, retry_after_s: u64) -> Problem {
        Problem { retry_after_s: Some(retry_after_s), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after_s) = (self.status, self.retry_after_s);
        let body = serde_json::to_vec(&self.details()).expect("problem details have string keys only");
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"postledger\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl Output for Problem {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let mut answer = |status, doc, example: Problem| {
            let content = Content::of(MEDIA_TYPE, schemas.of::<Details>());
            let example = serde_json::to_value(example.details()).expect("problem details are JSON");
            Answer::new(status, doc).with(Content { example: Some(example), ..content })
        };
        let conflict = Problem::conflict("it exists already");
        let refused = answer("4XX", "The request cannot be done; `code` tells why.", conflict)
            .named("Refused")
            .with_header("Retry-After", "With 429: seconds to wait.")
            .with_header("WWW-Authenticate", "With 401.");
        let failed =
            answer("5XX", "Nothing can be done now, or a fault of the program.", unavailable("too busy; try again"))
                .named("Failed")
                .with_header("Retry-After", "With 503: seconds to wait.");
        operation.answers.extend([refused, failed]);
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let (status, code) = match &refusal {
            Refusal::NoSuch(_) => (StatusCode::NOT_FOUND, Code::NotFound),
            Refusal::Exists(_)
            | Refusal::InUse(_)
            | Refusal::Conflict(_)
            | Refusal::AccountGoing(_)
            | Refusal::StaleAttempt(_) => (StatusCode::CONFLICT, Code::Conflict),
            Refusal::Invalid(_)
            | Refusal::BadFrom
            | Refusal::DomainDisabled
            | Refusal::NoRecipients
            | Refusal::TooManyRecipients
            | Refusal::FutureReleaseTooFar
            | Refusal::OverQuota { .. }
            | Refusal::IdempotencyMismatch => (StatusCode::UNPROCESSABLE_ENTITY, Code::Invalid),
            Refusal::CutOff { seq, last_common } => return Problem::cut_off(*seq, *last_common),
            Refusal::MessageLimit | Refusal::RecipientLimit => (StatusCode::TOO_MANY_REQUESTS, Code::TooMany),
            Refusal::Damaged(_) => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        };
        Problem::new(status, code, refusal.to_string())
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Problem {
        match error {
            ExecuteError::Refused(refusal) => refusal.into(),
            ExecuteError::InFlight => {
                let detail = "the same request is being worked on; ask again for its outcome";
                Problem::new(StatusCode::CONFLICT, Code::Conflict, detail)
            }
            ExecuteError::Unavailable(Unavailable::Busy) => unavailable("too busy; try again").after(RETRY_BUSY_S),
            ExecuteError::Unavailable(Unavailable::Stopped(why)) => unavailable(why).after(RETRY_STOPPED_S),
        }
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Problem {
        match error {
            LoginError::BadCredentials => Problem::unauthorized(BAD_CREDENTIALS),
            LoginError::Disabled => Problem::unauthorized("login is disabled for this account"),
            LoginError::TooMany { retry_after_s } => {
                let detail = "too many failed logins from this address; wait before the next";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::TooMany, detail).after(retry_after_s)
            }
            LoginError::Unavailable(why) => unavailable(why).after(RETRY_BUSY_S),
        }
    }
}

impl From<postledger_projections::Error> for Problem {
    fn from(error: postledger_projections::Error) -> Problem {
        Refusal::Damaged(error.to_string()).into()
    }
}

impl From<postledger_events::record::Error> for Problem {
    fn from(error: postledger_events::record::Error) -> Problem {
        Problem::internal(format!("{error}; run `postledger verify`"))
    }
}

/// The same whether there were credentials or not.
pub const BAD_CREDENTIALS: &str =
    "use HTTP Basic with an account's email address as user name, or `admin`, and the password; or a key: Bearer pl_…";

fn unavailable(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, why)
}

/// What a request answers whose handler panicked; the program's log has the rest.
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal("a fault of the program; its log says more").into_response()
}

#[cfg(test)]
mod tests {
    use postledger_events::refusal::Thing;

    use super::*;

    #[test]
    fn every_problem_has_its_status() {
        let check = |problem: Problem, status: u16, retry: Option<&str>| {
            let response = problem.into_response();
            let header = |name| response.headers().get(name).map(|v: &HeaderValue| v.to_str().unwrap());
            assert_eq!(header("content-type"), Some("application/problem+json"));
            assert_eq!((response.status().as_u16(), header("retry-after")), (status, retry));
            assert_eq!(header("www-authenticate").is_some(), status == 401);
        };
        check(Refusal::NoSuch(Thing::Account("x".to_owned())).into(), 404, None);
        check(Refusal::Exists(Thing::Domain("x".to_owned())).into(), 409, None);
        check(Refusal::Invalid("no".to_owned()).into(), 422, None);
        check(Refusal::Damaged("x".to_owned()).into(), 500, None);
        check(LoginError::BadCredentials.into(), 401, None);
        check(LoginError::TooMany { retry_after_s: 60 }.into(), 429, Some("60"));
        check(ExecuteError::Unavailable(Unavailable::Busy).into(), 503, Some("1"));
        check(ExecuteError::Unavailable(Unavailable::Stopped("disk full".to_owned())).into(), 503, Some("30"));
        check(Problem::rejected(StatusCode::PAYLOAD_TOO_LARGE, "large"), 413, None);
    }
}
