//! The document as a page for people: one file without scripts, in the colours that the reader's system has.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const NAMED: &str = "#/components/schemas/";
const ANSWERS: &str = "#/components/responses/";

/// The page of an OpenAPI document of ours.
pub fn page(document: &Value) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex,nofollow\">\n\
         <title>API - Postledger</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{} {}</h1>\n{}\
         <p>For programs: <a href=\"openapi.json\">openapi.json</a></p>\n</header>\n",
        escape(text(&document["info"]["title"])),
        escape(text(&document["info"]["version"])),
        paragraphs(text(&document["info"]["description"])),
    );
    let tags = list(&document["tags"]);
    out.push_str("<nav aria-label=\"Operations\">\n");
    tags.iter().for_each(|tag| contents(&mut out, document, tag));
    out.push_str("</nav>\n<main>\n");
    tags.iter().for_each(|tag| subject(&mut out, document, tag));
    out.push_str("<h2>Answers of many operations</h2>\n");
    for (name, answer) in members(&document["components"]["responses"]) {
        put(&mut out, format_args!("<section id=\"answer-{name}\">\n<h3>{name}</h3>\n", name = escape(name)));
        answered(&mut out, "", answer);
        out.push_str("</section>\n");
    }
    out.push_str("<h2>Schemas</h2>\n");
    members(&document["components"]["schemas"]).for_each(|(name, schema)| named_schema(&mut out, name, schema));
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// A tag's operations, as links.
fn contents(out: &mut String, document: &Value, tag: &Value) {
    let name = text(&tag["name"]);
    put(out, format_args!("<details><summary>{}</summary>\n<ul>\n", escape(name)));
    for (_, _, operation) in operations(document, name) {
        let (id, summary) = (escape(text(&operation["operationId"])), escape(text(&operation["summary"])));
        put(out, format_args!("<li><a href=\"#{id}\">{summary}</a></li>\n"));
    }
    out.push_str("</ul>\n</details>\n");
}

fn subject(out: &mut String, document: &Value, tag: &Value) {
    let name = text(&tag["name"]);
    put(out, format_args!("<h2>{}</h2>\n{}", escape(name), paragraphs(text(&tag["description"]))));
    for (path, method, described) in operations(document, name) {
        operation(out, path, method, described);
    }
}

fn operations<'a>(document: &'a Value, tag: &'a str) -> impl Iterator<Item = (&'a str, &'a str, &'a Value)> {
    let all = members(&document["paths"])
        .flat_map(|(path, methods)| members(methods).map(move |(method, operation)| (path, method, operation)));
    all.filter(move |(_, _, operation)| operation["tags"][0] == tag)
}

fn operation(out: &mut String, path: &str, method: &str, operation: &Value) {
    put(
        out,
        format_args!(
            "<section id=\"{}\">\n<h3>{}</h3>\n<p class=\"line\"><b>{}</b> <code>{}</code></p>\n<p class=\"who\">{}</p>\n{}",
            escape(text(&operation["operationId"])),
            escape(text(&operation["summary"])),
            method.to_ascii_uppercase(),
            escape(path),
            who(operation),
            paragraphs(text(&operation["description"])),
        ),
    );
    let parameters = list(&operation["parameters"]);
    if !parameters.is_empty() {
        out.push_str("<h4>Parameters</h4>\n<table>\n");
        parameters.iter().for_each(|parameter| parameter_row(out, parameter));
        out.push_str("</table>\n");
    }
    if let Some(content) = operation.get("requestBody") {
        out.push_str("<h4>Body</h4>\n");
        forms(out, content);
    }
    out.push_str("<h4>Answers</h4>\n");
    members(&operation["responses"]).for_each(|(status, answer)| answered(out, status, answer));
    out.push_str("</section>\n");
}

fn answered(out: &mut String, status: &str, answer: &Value) {
    if let Some(name) = answer["$ref"].as_str().and_then(|path| path.strip_prefix(ANSWERS)) {
        let name = escape(name);
        return put(out, format_args!("<p><b>{status}</b> <a href=\"#answer-{name}\">{name}</a></p>\n"));
    }
    put(out, format_args!("<p><b>{status}</b> {}</p>\n", inline(text(&answer["description"]))));
    for (name, header) in members(&answer["headers"]) {
        let doc = inline(text(&header["description"]));
        put(out, format_args!("<p class=\"form\">Header <code>{}</code>: {doc}</p>\n", escape(name)));
    }
    forms(out, answer);
}

/// Whom the operation is open to.
fn who(operation: &Value) -> String {
    match operation["security"].pointer("/1/key/0").and_then(Value::as_str) {
        Some(scope) => format!("a key needs the scope <code>{}</code>", escape(scope)),
        None => "no login".to_owned(),
    }
}

fn parameter_row(out: &mut String, parameter: &Value) {
    let required = if parameter["required"] == true { ", required" } else { "" };
    put(
        out,
        format_args!(
            "<tr><td><code>{}</code><td>{}{required}, {}<td>{}\n",
            escape(text(&parameter["name"])),
            escape(text(&parameter["in"])),
            kind(&parameter["schema"]),
            inline(text(&parameter["description"])),
        ),
    );
}

/// The forms of a body: its type, and an example.
fn forms(out: &mut String, of: &Value) {
    for (media_type, content) in members(&of["content"]) {
        let kind = kind(&content["schema"]);
        put(out, format_args!("<p class=\"form\"><code>{}</code>: {kind}</p>\n", escape(media_type)));
        properties(out, &content["schema"]);
        if let Some(example) = content.get("example") {
            let example = serde_json::to_string_pretty(example).expect("an example has string keys only");
            put(out, format_args!("<pre>{}</pre>\n", escape(&example)));
        }
    }
}

fn named_schema(out: &mut String, name: &str, schema: &Value) {
    let name = escape(name);
    let doc = paragraphs(text(&schema["description"]));
    put(
        out,
        format_args!("<section id=\"schema-{name}\">\n<h3>{name}</h3>\n<p class=\"line\">{}</p>\n{doc}", kind(schema)),
    );
    properties(out, schema);
    out.push_str("</section>\n");
}

/// The members of an object as a table; nothing for others.
fn properties(out: &mut String, schema: &Value) {
    let properties = &schema["properties"];
    if members(properties).next().is_none() {
        return;
    }
    let required = list(&schema["required"]);
    out.push_str("<table>\n");
    for (name, property) in members(properties) {
        let may_be_missing = if required.iter().any(|one| one == name) { "" } else { ", may be missing" };
        let (kind, doc) = (kind(property), inline(text(&property["description"])));
        put(out, format_args!("<tr><td><code>{}</code><td>{kind}{may_be_missing}<td>{doc}\n", escape(name)));
    }
    out.push_str("</table>\n");
}

/// A schema in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix(NAMED)) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    let choices = list(&schema["oneOf"]).iter().chain(list(&schema["anyOf"])).map(kind).collect::<Vec<_>>();
    if !choices.is_empty() {
        return choices.join(" or ");
    }
    if schema.get("enum").is_some() {
        let words = list(&schema["enum"]).iter().map(|word| format!("<code>{}</code>", escape(text(word))));
        return words.collect::<Vec<_>>().join(" or ");
    }
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|one| plain_kind(text(one), schema)).collect::<Vec<_>>().join(" or "),
        one => plain_kind(text(one), schema),
    }
}

fn plain_kind(name: &str, schema: &Value) -> String {
    match name {
        "" => "anything".to_owned(),
        "string" => "text".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        // A choice that carries a value: the word and what comes with it.
        "object" if schema["additionalProperties"] == false && list(&schema["required"]).len() == 1 => {
            let only = members(&schema["properties"])
                .map(|(key, value)| format!("object with <code>{}</code>: {}", escape(key), kind(value)));
            only.take(1).collect()
        }
        other => escape(other),
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let map: Option<&Map<String, Value>> = value.as_object();
    map.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a String takes all");
}

/// Text with empty lines between its paragraphs, some of which are lists.
fn paragraphs(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.is_empty());
    let html = paragraphs.map(|paragraph| match paragraph.strip_prefix("- ") {
        Some(items) => {
            let items: String = items.split("\n- ").map(|item| format!("<li>{}</li>\n", inline(item))).collect();
            format!("<ul>\n{items}</ul>\n")
        }
        None => format!("<p>{}</p>\n", inline(paragraph)),
    });
    html.collect()
}

/// Text with `code` and **weight** in it.
fn inline(text: &str) -> String {
    marked(&marked(&escape(text), "`", "code"), "**", "b")
}

/// What stands between two of the marks gets a tag.
fn marked(text: &str, mark: &str, tag: &str) -> String {
    let parts = text.split(mark).enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<{tag}>{part}</{tag}>") } else { part.to_owned() }).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
:root { color-scheme: light dark; --line: #ccc; --soft: #f5f5f5; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #262626; --link: #8ab4f8; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.3rem; margin: 3rem 0 0; } h3 { font-size: 1.1rem; margin: 0; }
h4 { font-size: 1rem; margin: 1rem 0 .25rem; }
a { color: var(--link); }
nav ul { margin: .25rem 0 .75rem; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1rem; }
p { margin: .25rem 0 .5rem; } .who, .form { font-size: .9rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .875em; overflow-wrap: anywhere; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: .75rem; overflow-x: auto;
  white-space: pre-wrap; max-height: 24rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin-bottom: .5rem; }
td { border-top: 1px solid var(--line); padding: .25rem .75rem .25rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { width: 25%; } td:nth-child(2) { width: 35%; }
";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_in_words() {
        let check = |schema: Value, expect: &str| assert_eq!(kind(&schema), expect, "{schema}");
        check(json!({}), "anything");
        check(json!({"type": ["string", "null"]}), "text or null");
        check(json!({"$ref": "#/components/schemas/Key"}), "<a href=\"#schema-Key\">Key</a>");
        let key = json!({"anyOf": [{"$ref": "#/components/schemas/Key"}, {"type": "null"}]});
        check(key, "<a href=\"#schema-Key\">Key</a> or null");
        check(json!({"type": "array", "items": {"type": "integer"}}), "list of integer");
        check(json!({"type": "string", "enum": ["a", "b"]}), "<code>a</code> or <code>b</code>");
        check(json!({"type": "object", "additionalProperties": {"type": "string"}}), "object of text");
    }

    #[test]
    fn text_becomes_html_and_nothing_else_does() {
        assert_eq!(inline("a `<b>` is **not** bold"), "a <code>&lt;b&gt;</code> is <b>not</b> bold");
        assert_eq!(paragraphs("one\n\n- a\n- b"), "<p>one</p>\n<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n");
        assert_eq!(paragraphs(""), "");
    }
}
