//! Pages for people: the list of methods, and for each an example and a form to try it. Nothing is loaded from elsewhere.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Method;

/// What a person needs to know of a method.
pub struct Example {
    pub what: &'static str,
    pub request: &'static str,
    pub response: &'static str,
}

/// `None` for methods that are not in this version.
pub fn example(method: Method) -> Option<Example> {
    match method {
        Method::Send => Some(Example {
            what: "Submits a message for delivery to every recipient in To, CC and BCC. When the answer arrives, the \
                   message is on disk. Files can also be sent as parts <code>alternativefile</code>, \
                   <code>inlinefile</code> and <code>attachedfile</code> of a multipart form. An \
                   <code>Idempotency-Key</code> header makes it safe to repeat a request.",
            request: SEND_REQUEST,
            response: SEND_RESPONSE,
        }),
        Method::SuppressionList => Some(Example {
            what: "Lists the addresses that this account does not send to.",
            request: "{}",
            response: SUPPRESSION_LIST_RESPONSE,
        }),
        Method::SuppressionAdd => Some(Example {
            what: "Adds an address to the suppression list: later messages to it, and to its variants, are not \
                   delivered.",
            request: SUPPRESSION_ADD_REQUEST,
            response: "{}",
        }),
        Method::SuppressionRemove => Some(Example {
            what: "Removes an address from the suppression list. Any variant of it will do.",
            request: SUPPRESSION_ADDRESS_REQUEST,
            response: "{}",
        }),
        Method::SuppressionPresent => Some(Example {
            what: "Says whether an address, in any of its variants, is on the suppression list.",
            request: SUPPRESSION_ADDRESS_REQUEST,
            response: "{\n  \"Present\": true\n}",
        }),
        Method::MessageGet
        | Method::MessageRawGet
        | Method::MessagePartGet
        | Method::MessageDelete
        | Method::MessageFlagsAdd
        | Method::MessageFlagsRemove
        | Method::MessageMove => None,
    }
}

/// All methods of this version.
pub fn index() -> Response {
    let mut list = String::new();
    for method in Method::ALL {
        if let Some(example) = example(method) {
            let name = method.name();
            list.push_str(&format!("<li><a href=\"{name}\">{name}</a><p>{}</p></li>\n", example.what));
        }
    }
    page("Webapi", &INDEX.replace("{list}", &list))
}

/// A method with its example; `None` if it is not in this version.
pub fn method(method: Method) -> Option<Response> {
    let Example { what, request, response } = example(method)?;
    let body = METHOD
        .replace("{name}", method.name())
        .replace("{what}", what)
        .replace("{request}", &escape(request))
        .replace("{response}", &escape(response));
    Some(page(method.name(), &body))
}

/// 303 to another page.
pub fn see(path: &str) -> Response {
    let body = format!("<a href=\"{path}\">See Other</a>.\n");
    let headers = [(header::LOCATION, path), (header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (StatusCode::SEE_OTHER, headers, body).into_response()
}

fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex,nofollow\">\n\
         <title>{title} - Postledger webapi</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    );
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #ccc; --soft: #f5f5f5; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #262626; --link: #8ab4f8; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
a { color: var(--link); }
li p { margin: 0 0 .75rem; }
pre, textarea { font: 14px/1.4 ui-monospace, monospace; background: var(--soft); border: 1px solid var(--line);
  border-radius: 4px; padding: .75rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
textarea { width: 100%; box-sizing: border-box; color: inherit; }
button { font: inherit; padding: .3rem 1rem; }
";

const INDEX: &str = r#"<h1>Webapi</h1>
<p>Call a method by POST to its address, with HTTP basic authentication (an email address of the account, and its
password) and the request as JSON: in the form field <code>request</code>, or as the body with
<code>Content-Type: application/json</code>. The answer is JSON as well; an error has status 400 and the keys
<code>Code</code> and <code>Message</code>.</p>
<pre>curl --user mox@localhost:moxmoxmox \
    --data-urlencode 'request={"To": [{"Address": "mox@localhost"}], "Text": "hi"}' \
    http://localhost:1080/webapi/v0/Send</pre>
<h2>Methods</h2>
<ul>
{list}</ul>
"#;

const METHOD: &str = r#"<p><a href="./">Webapi</a></p>
<h1>{name}</h1>
<p>{what}</p>
<h2>Request</h2>
<form id="call" method="post" enctype="multipart/form-data">
<textarea name="request" id="request" aria-label="Request JSON" spellcheck="false" rows="20">{request}</textarea>
<p><button>Call</button></p>
</form>
<h2 id="status" aria-live="polite">Response</h2>
<pre id="response">{response}</pre>
<script>
const form = document.getElementById('call'), request = document.getElementById('request');
request.rows = request.value.split('\n').length + 1;
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = form.querySelector('button');
  const status = document.getElementById('status'), response = document.getElementById('response');
  button.disabled = true;
  status.textContent = 'Response …';
  try {
    const answer = await fetch(location.href, { method: 'POST', body: new FormData(form) });
    const text = await answer.text();
    status.textContent = 'Response: ' + answer.status + ' ' + answer.statusText;
    try {
      response.textContent = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      response.textContent = text;
    }
  } catch (error) {
    status.textContent = 'Response: none';
    response.textContent = String(error);
  } finally {
    button.disabled = false;
  }
});
</script>
"#;

const SEND_REQUEST: &str = r#"{
  "From": [{ "Name": "Shop", "Address": "mox@localhost" }],
  "To": [{ "Name": "Customer", "Address": "mox@localhost" }],
  "CC": [],
  "BCC": [],
  "ReplyTo": [],
  "MessageID": "",
  "References": [],
  "Date": null,
  "Subject": "Your order ☺",
  "Text": "Thank you for your order.\n",
  "HTML": "<p>Thank you for your order.</p>",
  "Extra": { "order": "123" },
  "Headers": [["X-Campaign", "orders"]],
  "AlternativeFiles": [],
  "InlineFiles": [],
  "AttachedFiles": [
    { "Name": "order.txt", "ContentType": "text/plain", "ContentID": "", "Data": "T3JkZXIgMTIzCg==" }
  ],
  "RequireTLS": null,
  "FutureRelease": null,
  "SaveSent": true
}"#;

const SEND_RESPONSE: &str = r#"{
  "MessageID": "<kVTha0Q-a5Zh1MuTh5rUjg@localhost>",
  "Submissions": [
    { "Address": "mox@localhost", "QueueMsgID": 10010, "FromID": "ZfV16EATHwKEufrSMo055Q" }
  ]
}"#;

const SUPPRESSION_LIST_RESPONSE: &str = r#"{
  "Suppressions": [
    {
      "ID": 1,
      "Created": "2026-01-02T03:04:05.000000000Z",
      "Account": "mox",
      "BaseAddress": "customer@example.org",
      "OriginalAddress": "Customer+news@example.org",
      "Manual": false,
      "Reason": "delivery failure from queue with smtp code 550, enhanced code \"1.1\""
    }
  ]
}"#;

const SUPPRESSION_ADD_REQUEST: &str = r#"{
  "EmailAddress": "customer@example.org",
  "Manual": true,
  "Reason": "asked to get no more mail"
}"#;

const SUPPRESSION_ADDRESS_REQUEST: &str = r#"{
  "EmailAddress": "customer@example.org"
}"#;
