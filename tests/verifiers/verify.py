"""Reads secrets and calls as JSON. Prints for each call and secret whether the library of PyPI takes the call, and whether it
takes the same call with another body."""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def takes(secret, call, body):
    try:
        Webhook(secret).verify(body.encode(), call["headers"])
        return True
    except WebhookVerificationError as e:
        assert "signature" in str(e), e
        return False


given = json.load(sys.stdin)
json.dump(
    [
        [[takes(secret, call, call["body"]), takes(secret, call, call["body"] + " ")] for secret in given["secrets"]]
        for call in given["calls"]
    ],
    sys.stdout,
)
