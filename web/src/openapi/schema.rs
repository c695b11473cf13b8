//! JSON Schemas (draft 2020-12, as OpenAPI 3.1 has them) of the types that requests and answers are made of.

use std::any::type_name;
use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Where the document keeps schemas that have a name.
const NAMED: &str = "#/components/schemas/";

/// A type whose JSON a schema tells of. Derived from the type where it is one of this crate's.
pub trait Describe {
    /// Its name among the document's schemas. `None`: it is written out wherever it is used.
    const NAME: Option<&'static str> = None;

    fn schema(schemas: &mut Schemas) -> Schema;
}

/// The document's schemas that have a name.
#[derive(Debug, Default)]
pub struct Schemas(BTreeMap<&'static str, Named>);

#[derive(Debug)]
struct Named {
    /// The Rust type, so that no two share a name.
    of: &'static str,
    schema: Schema,
}

impl Schemas {
    /// What stands where a `T` does: its schema, or a reference to it.
    pub fn of<T: Describe>(&mut self) -> Schema {
        let Some(name) = T::NAME else { return T::schema(self) };
        match self.0.get(name) {
            Some(known) => assert_eq!(known.of, type_name::<T>(), "two types are named {name} in the document"),
            None => {
                // It stands there while its own parts are described, which may name it.
                self.0.insert(name, Named { of: type_name::<T>(), schema: Schema::default() });
                let schema = T::schema(self);
                self.0.insert(name, Named { of: type_name::<T>(), schema });
            }
        }
        Schema::from_json(json!({"$ref": format!("{NAMED}{name}")}))
    }

    /// The schema that a reference leads to; the schema itself if it is none.
    pub fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        let name = schema.0.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(NAMED));
        name.and_then(|name| self.0.get(name)).map_or(schema, |named| &named.schema)
    }

    pub fn into_json(self) -> Map<String, Value> {
        self.0.into_iter().map(|(name, named)| (name.to_owned(), named.schema.into_json())).collect()
    }
}

/// One schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema(Map<String, Value>);

/// A member of an object.
pub struct Member {
    pub name: &'static str,
    pub doc: &'static str,
    pub required: bool,
    pub schema: Schema,
}

impl Schema {
    /// Panics if this is no object: schemas are written in the source.
    pub fn from_json(json: Value) -> Schema {
        match json {
            Value::Object(map) => Schema(map),
            other => panic!("{other} is no schema"),
        }
    }

    pub fn into_json(self) -> Value {
        Value::Object(self.0)
    }

    pub fn text(example: &str) -> Schema {
        Schema::from_json(json!({"type": "string", "examples": [example]}))
    }

    pub fn integer(max: Option<u64>) -> Schema {
        let schema = Schema::from_json(json!({"type": "integer", "minimum": 0}));
        match max {
            Some(max) => schema.with("maximum", max),
            None => schema,
        }
    }

    pub fn list(items: Schema) -> Schema {
        Schema::from_json(json!({"type": "array", "items": items.into_json()}))
    }

    /// A strict one has no members but these.
    pub fn object(strict: bool, members: impl IntoIterator<Item = Member>) -> Schema {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for Member { name, doc, required: is_required, schema } in members {
            if is_required {
                required.push(Value::from(name));
            }
            properties.insert(name.to_owned(), schema.with_description(doc).into_json());
        }
        let mut schema = Schema::from_json(json!({"type": "object", "properties": properties}));
        if !required.is_empty() {
            schema = schema.with("required", required);
        }
        if strict { schema.with("additionalProperties", false) } else { schema }
    }

    /// One of these words; or an object whose only member is named by one of the other words.
    pub fn choice(
        words: &[(&str, &str)],
        objects: impl IntoIterator<Item = (&'static str, &'static str, Schema)>,
    ) -> Schema {
        let mut all = Vec::new();
        if !words.is_empty() {
            all.push(Schema::words(words));
        }
        for (name, doc, schema) in objects {
            all.push(Schema::object(true, [Member { name, doc, required: true, schema }]));
        }
        match all.pop() {
            Some(only) if all.is_empty() => only,
            last => {
                let all = all.into_iter().chain(last).map(Schema::into_json);
                Schema::from_json(json!({"oneOf": all.collect::<Vec<_>>()}))
            }
        }
    }

    fn words(words: &[(&str, &str)]) -> Schema {
        let spelled: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let told = words.iter().filter(|(_, doc)| !doc.is_empty());
        let told: Vec<String> = told.map(|(word, doc)| format!("- `{word}`: {doc}")).collect();
        Schema::from_json(json!({"type": "string", "enum": spelled})).with_description(&told.join("\n"))
    }

    /// The same or `null`.
    pub fn or_null(self) -> Schema {
        if self.is_nullable() {
            return self;
        }
        match self.0.get("type") {
            Some(Value::String(kind)) if !self.0.contains_key("enum") => {
                let kinds = json!([kind, "null"]);
                self.with("type", kinds)
            }
            _ => Schema::from_json(json!({"anyOf": [self.into_json(), {"type": "null"}]})),
        }
    }

    /// The same without `null`.
    pub fn not_null(mut self) -> Schema {
        if !self.is_nullable() {
            return self;
        }
        if let Some(Value::Array(mut kinds)) = self.0.remove("type") {
            return self.with("type", kinds.swap_remove(0));
        }
        let description = self.0.remove("description");
        let Some(Value::Array(mut choices)) = self.0.remove("anyOf") else { return self };
        let schema = Schema::from_json(choices.swap_remove(0));
        match description {
            Some(description) => schema.with("description", description),
            None => schema,
        }
    }

    fn is_nullable(&self) -> bool {
        let null = Value::from("null");
        let in_kinds = self.0.get("type").and_then(Value::as_array).is_some_and(|kinds| kinds.contains(&null));
        let choices = self.0.get("anyOf").and_then(Value::as_array);
        in_kinds || choices.is_some_and(|choices| choices.iter().any(|choice| choice["type"] == null))
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Schema {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Puts it before what is told already, such as what the words of an enum mean.
    pub fn with_description(self, text: &str) -> Schema {
        let told = self.0.get("description").and_then(Value::as_str).unwrap_or_default();
        let joined = match (text.is_empty(), told.is_empty()) {
            (true, _) => return self,
            (false, true) => text.to_owned(),
            (false, false) => format!("{text}\n\n{told}"),
        };
        self.with("description", joined)
    }

    /// Of JSON text that is written in the source.
    pub fn with_example(self, json: &str) -> Schema {
        let example: Value = serde_json::from_str(json).expect("an example is JSON");
        self.with("examples", vec![example])
    }

    /// Name, whether it is required, and schema of each member.
    pub fn members(&self) -> impl Iterator<Item = (&str, bool, Schema)> {
        let required = self.0.get("required").and_then(Value::as_array);
        let is_required = move |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
        let properties = self.0.get("properties").and_then(Value::as_object).into_iter().flatten();
        properties.map(move |(name, schema)| (name.as_str(), is_required(name), Schema::from_json(schema.clone())))
    }

    /// A value that it is right for.
    pub fn example(&self, schemas: &Schemas) -> Value {
        let first = |key: &str| self.0.get(key).and_then(|list| list.get(0)).cloned();
        if let Some(example) = first("examples").or_else(|| first("enum")) {
            return example;
        }
        if let Some(choice) = first("oneOf").or_else(|| first("anyOf")) {
            return Schema::from_json(choice).example(schemas);
        }
        if self.0.contains_key("$ref") {
            return schemas.resolve(self).example(schemas);
        }
        let kind = self.0.get("type");
        match kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str())) {
            Some("object") => self.example_object(schemas),
            Some("array") => {
                let items = self.0.get("items").cloned().map(Schema::from_json);
                Value::Array(items.iter().map(|items| items.example(schemas)).collect())
            }
            Some("integer") => Value::from(1),
            Some("boolean") => Value::from(false),
            Some("string") => Value::from("text"),
            _ => Value::Null,
        }
    }

    /// Of a request what it must have, of an answer everything.
    fn example_object(&self, schemas: &Schemas) -> Value {
        let strict = self.0.contains_key("additionalProperties");
        let shown = self.members().filter(|(_, required, _)| *required || !strict);
        Value::Object(shown.map(|(name, _, schema)| (name.to_owned(), schema.example(schemas))).collect())
    }
}

/// A member that may be missing, of the type of a field.
pub fn member_of<S, T: Describe>(
    schemas: &mut Schemas,
    name: &'static str,
    doc: &'static str,
    _: fn(&S) -> &T,
) -> Member {
    Member { name, doc: doc.trim_start(), required: false, schema: schemas.of::<T>() }
}

/// Types with a schema that is the same everywhere.
macro_rules! plain {
    ($($type:ty => $schema:expr;)*) => {$(
        impl Describe for $type {
            fn schema(_: &mut Schemas) -> Schema {
                $schema
            }
        }
    )*};
}

plain! {
    String => Schema::from_json(json!({"type": "string"}));
    bool => Schema::from_json(json!({"type": "boolean"}));
    char => Schema::from_json(json!({"type": "string", "minLength": 1, "maxLength": 1, "examples": ["+"]}));
    u16 => Schema::integer(Some(u16::MAX.into()));
    u32 => Schema::integer(Some(u32::MAX.into()));
    u64 => Schema::integer(None);
    usize => Schema::integer(None);
    // Anything.
    Value => Schema::default();
}

impl Describe for &str {
    fn schema(schemas: &mut Schemas) -> Schema {
        String::schema(schemas)
    }
}

impl Describe for Cow<'_, str> {
    fn schema(schemas: &mut Schemas) -> Schema {
        String::schema(schemas)
    }
}

impl<T: Describe> Describe for Option<T> {
    fn schema(schemas: &mut Schemas) -> Schema {
        schemas.of::<T>().or_null()
    }
}

impl<T: Describe + ?Sized> Describe for Box<T> {
    const NAME: Option<&'static str> = T::NAME;
    fn schema(schemas: &mut Schemas) -> Schema {
        T::schema(schemas)
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn schema(schemas: &mut Schemas) -> Schema {
        Schema::list(schemas.of::<T>())
    }
}

impl<T: Describe> Describe for [T; 2] {
    fn schema(schemas: &mut Schemas) -> Schema {
        Schema::list(schemas.of::<T>()).with("minItems", 2).with("maxItems", 2)
    }
}

impl<T: Describe> Describe for BTreeMap<String, T> {
    fn schema(schemas: &mut Schemas) -> Schema {
        Schema::from_json(json!({"type": "object", "additionalProperties": schemas.of::<T>().into_json()}))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::openapi::Describe;

    /// A thing; see [`Word`].
    #[derive(Serialize, Deserialize, Describe)]
    struct Answer {
        /// Its number.
        #[serde(rename = "No")]
        number: u32,
        word: Option<Word>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        more: Option<String>,
    }

    #[derive(Serialize, Deserialize, Describe)]
    #[serde(deny_unknown_fields)]
    struct Request {
        must: String,
        may: Option<u16>,
        #[serde(default)]
        flag: bool,
    }

    #[derive(Serialize, Deserialize, Describe)]
    #[serde(rename_all = "kebab-case")]
    enum Word {
        /// The first.
        OneTwo,
        Three,
    }

    #[derive(Serialize, Deserialize, Describe)]
    #[serde(rename_all = "snake_case")]
    enum Mixed {
        Plain,
        /// With text.
        Told(String),
        Range {
            from: u64,
        },
    }

    fn check<T: Describe>(expect: Value) {
        assert_eq!(T::schema(&mut Schemas::default()).into_json(), expect);
    }

    #[test]
    fn schemas_say_what_serde_does() {
        check::<Answer>(json!({
            "type": "object",
            "description": "A thing; see `Word`.",
            "properties": {
                "No": {"type": "integer", "minimum": 0, "maximum": u32::MAX, "description": "Its number."},
                "word": {"anyOf": [{"$ref": "#/components/schemas/Word"}, {"type": "null"}]},
                "more": {"type": ["string", "null"]},
            },
            "required": ["No", "word"],
        }));
        check::<Request>(json!({
            "type": "object",
            "properties": {
                "must": {"type": "string"},
                "may": {"type": ["integer", "null"], "minimum": 0, "maximum": 65535},
                "flag": {"type": "boolean"},
            },
            "required": ["must"],
            "additionalProperties": false,
        }));
        check::<Word>(
            json!({"type": "string", "enum": ["one-two", "three"], "description": "- `one-two`: The first."}),
        );
        let member = |name: &str, schema: Value| json!({"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": false});
        let from = json!({"type": "integer", "minimum": 0});
        let range = json!({"type": "object", "properties": {"from": from}, "required": ["from"]});
        check::<Mixed>(json!({"oneOf": [
            {"type": "string", "enum": ["plain"]},
            member("told", json!({"type": "string", "description": "With text."})),
            member("range", range),
        ]}));
    }

    #[test]
    fn null_goes_and_comes() {
        let mut schemas = Schemas::default();
        let plain = schemas.of::<u16>();
        let named = schemas.of::<Word>();
        for schema in [plain, named] {
            let nullable = schema.clone().or_null();
            assert_ne!(nullable, schema);
            assert_eq!(nullable.clone().or_null(), nullable);
            assert_eq!(nullable.with_description("x").not_null(), schema.with_description("x"));
        }
    }

    #[test]
    #[should_panic(expected = "two types are named Same")]
    fn no_two_types_share_a_name() {
        #[derive(Describe)]
        #[describe(name = "Same")]
        struct One {}
        #[derive(Describe)]
        #[describe(name = "Same")]
        struct Other {}
        let mut schemas = Schemas::default();
        schemas.of::<One>();
        schemas.of::<Other>();
    }

    #[test]
    fn examples_are_made_of_parts() {
        let mut schemas = Schemas::default();
        let request = schemas.of::<Request>();
        let answer = schemas.of::<Answer>();
        assert_eq!(request.example(&schemas), json!({"must": "text"}));
        assert_eq!(answer.example(&schemas), json!({"No": 1, "word": "one-two", "more": "text"}));
    }
}
