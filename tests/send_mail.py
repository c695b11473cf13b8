"""Hands a message to an SMTP server with Python's smtplib and prints what came of it as JSON.

The request is JSON on standard input: host, port, starttls, from, to (a list), options (of MAIL), message (base64).
"""

import base64
import json
import smtplib
import ssl
import sys

request = json.load(sys.stdin)
with smtplib.SMTP(request["host"], request["port"], timeout=60) as smtp:
    smtp.ehlo()
    if request["starttls"]:
        smtp.starttls(context=ssl._create_unverified_context())
        smtp.ehlo()
    answer = {"features": sorted(smtp.esmtp_features), "refused": {}, "error": None}
    try:
        message = base64.b64decode(request["message"])
        refused = smtp.sendmail(request["from"], request["to"], message, mail_options=request["options"])
        answer["refused"] = {to: code for to, (code, _) in refused.items()}
    except smtplib.SMTPRecipientsRefused as e:
        answer["refused"] = {to: code for to, (code, _) in e.recipients.items()}
    except smtplib.SMTPResponseException as e:
        answer["error"] = e.smtp_code
print(json.dumps(answer))
