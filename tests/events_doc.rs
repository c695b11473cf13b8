//! docs/events.md says what the code says: it is made from the doc comments of the facts. `UPDATE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use postledger_events::event::KINDS;

const DOCUMENT: &str = "docs/events.md";
const FACTS: &str = "events/src/fact";
/// In the order of a first reading.
const FAMILIES: [&str; 13] = [
    "ledger",
    "account",
    "submission",
    "attempt",
    "delivery",
    "suppression",
    "mailbox",
    "endpoint",
    "call",
    "replay",
    "access",
    "job",
    "expiry",
];

const INTRODUCTION: &str = r#"# Facts

Made from the doc comments in `events/src/fact/` by `UPDATE=1 cargo test --test promises events_doc`. Do not edit it.

A record of the log is one line of JSON:

```json
{"seq":7,"at":"2026-01-02T03:04:05.000000000Z","kind":"AttemptStarted","v":1,"prev":"<64 hex digits>","data":{…},"personal":{"message:<uuid>":{…}}}
```

| key | what |
|---|---|
| `seq` | its place in the log, from 1: the name of the fact everywhere |
| `at` | when it was written, UTC |
| `kind`, `v` | the kind of fact and the version of its form |
| `prev` | SHA-256 of the line before, so that nothing can be changed, removed or put in unseen |
| `data` | what may stay for ever |
| `personal` | what names or quotes a person, under whom it is about (`message:…`, `recipient:…`, `account:…`, `key:…`); `null` instead once it was forgotten; `{}` for kinds that have none |

Some types that are meant by name:

| type | in JSON |
|---|---|
| `Seq`, `DeliveryId` (the QueueMsgID of the webapi), `MsgId`, `SuppressionId`, `HoldRuleId`, `JobId`, `ReplayId`, `KeyId` | a number below 2^53 |
| `MessageUuid`, `AttemptId`, `LedgerId`, `SecretId` | a UUID; those of messages and attempts sort by time |
| `Timestamp` | RFC 3339, UTC, nine digits |
| `Address`, `Domain` | text; domains in Unicode, lower case |
| `RecipientKey` | 32 hex digits: a pseudonym of an account's recipient, made with a key that is in the vault |
| `Fingerprint`, `SecretRef` | which secret, without its value |
| `Author` | who did it: `unix:USER` at the control socket, `admin`, `account:NAME`, `key:NUMBER`, or `postledger` itself |
| `Reply` | `{"code":250,"lines":["2.0.0 ok"]}`, as the next hop said it |
| `EnhancedCode` | `"5.1.1"` |
"#;

#[test]
fn the_document_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let families = FAMILIES.map(|name| {
        let path = root.join(FACTS).join(format!("{name}.rs"));
        Family::read(&std::fs::read_to_string(path).expect("a family of facts"))
    });
    let described: usize = families.iter().flat_map(|f| &f.items).filter(|item| item.version().is_some()).count();
    assert_eq!(described, KINDS.len(), "every kind is in one of the families");

    let document = document(&families);
    let path = root.join(DOCUMENT);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &document).expect("the document is written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == document, "{DOCUMENT} is stale: UPDATE=1 cargo test --test promises events_doc");
}

fn document(families: &[Family]) -> String {
    let mut out = INTRODUCTION.to_owned();
    for family in families {
        write!(out, "\n## {}\n", family.doc).expect("a String takes all");
        let personal: Vec<&str> = family.items.iter().filter_map(|item| item.personal.as_deref()).collect();
        for item in family.items.iter().filter(|item| item.version().is_some()) {
            item.describe_kind(families, &mut out);
        }
        let is_part = |item: &&Item| item.version().is_none() && !personal.contains(&item.name.as_str());
        for item in family.items.iter().filter(is_part) {
            write!(out, "\n**`{}`**: {}\n", item.name, item.doc).expect("a String takes all");
            item.table(&mut out);
        }
    }
    out
}

/// One file.
#[derive(Default)]
struct Family {
    doc: String,
    items: Vec<Item>,
}

/// A struct or an enum.
#[derive(Default)]
struct Item {
    name: String,
    doc: String,
    is_enum: bool,
    /// It is written in a way of its own, which its doc comment tells.
    is_opaque: bool,
    /// How the names of an enum's variants are written.
    rename: Option<String>,
    members: Vec<Member>,
    /// The type of the personal part.
    personal: Option<String>,
    /// Whom the personal part is about.
    subject: String,
}

/// A field or a variant.
#[derive(Default)]
struct Member {
    name: String,
    kind: String,
    doc: String,
    attributes: String,
}

impl Family {
    /// Understands what rustfmt makes of plain structs and enums, line by line.
    fn read(source: &str) -> Family {
        let mut family = Family::default();
        let (mut doc, mut attributes) = (String::new(), String::new());
        let mut inside = false;
        for line in source.lines() {
            let text = line.trim();
            if let Some(comment) = line.strip_prefix("//!") {
                append(&mut family.doc, comment.trim());
            } else if let Some(comment) = text.strip_prefix("///") {
                append(&mut doc, comment.trim());
            } else if text.starts_with("#[") {
                attributes.push_str(text);
            } else if let Some(item) = Item::begin(line, &mut doc, &mut attributes) {
                inside = line.ends_with('{');
                family.items.push(item);
            } else if inside && line.starts_with("    ") {
                let member = Member::read(text, std::mem::take(&mut doc), std::mem::take(&mut attributes));
                let item = family.items.last_mut().expect("members are within an item");
                item.members.extend(member);
            } else {
                inside = false;
                family.note_fact(line);
                (doc, attributes) = (String::new(), String::new());
            }
        }
        family.doc = family.doc.trim_end_matches('.').to_owned();
        family
    }

    /// `fact!(Name, Personal, |f| Subject::Message(f.message));`
    fn note_fact(&mut self, line: &str) {
        let Some(arguments) = line.strip_prefix("fact!(").and_then(|rest| rest.strip_suffix(");")) else { return };
        let mut arguments = arguments.splitn(3, ", ");
        let name = arguments.next();
        let item = self.items.iter_mut().find(|item| Some(item.name.as_str()) == name).expect("a fact is a struct");
        if let (Some(personal), Some(subject)) = (arguments.next(), arguments.next()) {
            item.personal = Some(personal.to_owned());
            let subject = subject.split_once("Subject::").and_then(|(_, s)| s.split_once('(')).expect("a subject").0;
            item.subject = subject.to_lowercase();
        }
    }
}

impl Item {
    fn begin(line: &str, doc: &mut String, attributes: &mut String) -> Option<Item> {
        let (is_enum, rest) = match line.strip_prefix("pub struct ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("pub enum ")?),
        };
        let name = rest.split([' ', '(', ';']).next()?.to_owned();
        let (doc, attributes) = (std::mem::take(doc), std::mem::take(attributes));
        let is_opaque = !attributes.contains("Serialize");
        let rename = attributes.split("rename_all = \"").nth(1).and_then(|rest| rest.split('"').next());
        Some(Item { name, doc, is_enum, is_opaque, rename: rename.map(str::to_owned), ..Item::default() })
    }

    fn version(&self) -> Option<u32> {
        KINDS.iter().find(|(kind, _)| *kind == self.name).map(|(_, version)| *version)
    }

    fn describe_kind(&self, families: &[Family], out: &mut String) {
        let version = self.version().expect("it is a kind");
        write!(out, "\n### {} (v{version})\n\n{}\n", self.name, self.doc).expect("a String takes all");
        self.table(out);
        let Some(personal) = &self.personal else { return };
        let mut items = families.iter().flat_map(|family| &family.items);
        let part = items.find(|item| item.name == *personal).expect("a personal part of one of the families");
        write!(out, "\nPersonal, about the {}: {}\n", self.subject, part.doc).expect("a String takes all");
        part.table(out);
    }

    fn table(&self, out: &mut String) {
        let mut rows = String::new();
        for member in self.members.iter().filter(|member| !member.attributes.contains("serde(skip)")) {
            let (name, kind) = (self.written(&member.name), json_type(&member.kind));
            let missing = if member.attributes.contains("skip_serializing_if") { ", or missing" } else { "" };
            let doc = &member.doc;
            writeln!(rows, "| `{name}` | {kind}{missing} | {doc} |").expect("a String takes all");
        }
        if !rows.is_empty() && !self.is_opaque {
            let what = if self.is_enum { "value | with | what" } else { "field | type | what" };
            write!(out, "\n| {what} |\n|---|---|---|\n{rows}").expect("a String takes all");
        }
    }

    fn written(&self, name: &str) -> String {
        match self.rename.as_deref() {
            Some("lowercase") => name.to_lowercase(),
            Some("kebab-case") => kebab(name),
            Some(other) => panic!("the names of {} are written in a way that is not known here: {other}", self.name),
            None => name.to_owned(),
        }
    }
}

impl Member {
    /// `pub name: Type,` or `Variant(Type),`.
    fn read(text: &str, doc: String, attributes: String) -> Option<Member> {
        let text = text.strip_suffix(',')?;
        let (name, kind) = match text.strip_prefix("pub ") {
            Some(field) => field.split_once(": ")?,
            None => text.split_once('(').map_or((text, ""), |(name, kind)| (name, kind.trim_end_matches(')'))),
        };
        Some(Member { name: name.to_owned(), kind: kind.to_owned(), doc, attributes })
    }
}

/// A Rust type in words.
fn json_type(kind: &str) -> String {
    let inner = |outer: &str| kind.strip_prefix(outer).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return format!("{} or null", json_type(inner));
    }
    if let Some(inner) = inner("Vec<") {
        return format!("list of {}", json_type(inner));
    }
    if let Some((_, value)) = inner("BTreeMap<").and_then(|inner| inner.split_once(", ")) {
        return format!("object of {}", json_type(value));
    }
    match kind.rsplit("::").next().unwrap_or(kind) {
        "" => String::new(),
        "bool" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" => "number".to_owned(),
        "String" | "char" => "text".to_owned(),
        "IpAddr" | "SocketAddr" => "text".to_owned(),
        several if several.contains(", ") => {
            several.split(", ").map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")
        }
        name => format!("`{name}`"),
    }
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(line);
}
