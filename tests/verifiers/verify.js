// Reads secrets and calls as JSON. Prints for each call and secret whether the library of npm takes the call, and whether it takes
// the same call with another body.

const { Webhook, WebhookVerificationError } = require("standardwebhooks");

function takes(secret, call, body) {
  try {
    new Webhook(secret).verify(body, call.headers);
    return true;
  } catch (e) {
    if (e instanceof WebhookVerificationError && e.message.includes("signature")) return false;
    throw e;
  }
}

const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const both = (call) => (secret) => [takes(secret, call, call.body), takes(secret, call, call.body + " ")];
process.stdout.write(JSON.stringify(given.calls.map((call) => given.secrets.map(both(call)))));
