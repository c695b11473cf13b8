//! What a handler takes and answers, read off its signature.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::NoContent;
use serde_json::{Map, Value, json};

use super::schema::{Describe, Schema, Schemas};

/// A request and its answers, as far as the handler's types tell.
#[derive(Debug, Default)]
pub struct Operation {
    pub parameters: Vec<Parameter>,
    /// The forms that a body may have; none: there is no body.
    pub body: Vec<Content>,
    pub answers: Vec<Answer>,
}

/// A part of a request besides its body.
#[derive(Debug)]
pub struct Parameter {
    pub place: Place,
    /// Empty in the path, whose template has the names.
    pub name: String,
    pub required: bool,
    pub schema: Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
}

/// A body in one form.
#[derive(Debug)]
pub struct Content {
    pub media_type: &'static str,
    pub schema: Schema,
    /// One that is better than what the schema gives.
    pub example: Option<Value>,
}

/// What comes back.
#[derive(Debug)]
pub struct Answer {
    /// Under which the document keeps it once for all operations that have it.
    pub name: Option<&'static str>,
    /// A status code, or a class of them such as `4XX`.
    pub status: &'static str,
    pub doc: &'static str,
    pub content: Vec<Content>,
    /// Name and meaning of headers.
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Content {
    pub fn json(schema: Schema) -> Content {
        Content::of("application/json", schema)
    }

    pub fn of(media_type: &'static str, schema: Schema) -> Content {
        Content { media_type, schema, example: None }
    }

    fn into_json(self, schemas: &Schemas) -> (String, Value) {
        let Content { media_type, schema, example } = self;
        let example = example.or_else(|| media_type.ends_with("json").then(|| schema.example(schemas)));
        let mut content = json!({"schema": schema.into_json()});
        if let Some(example) = example {
            content["example"] = example;
        }
        (media_type.to_owned(), content)
    }
}

impl Answer {
    pub fn new(status: &'static str, doc: &'static str) -> Answer {
        Answer { name: None, status, doc, content: Vec::new(), headers: Vec::new() }
    }

    pub fn named(self, name: &'static str) -> Answer {
        Answer { name: Some(name), ..self }
    }

    pub fn with(mut self, content: Content) -> Answer {
        self.content.push(content);
        self
    }

    pub fn with_header(mut self, name: &'static str, doc: &'static str) -> Answer {
        self.headers.push((name, doc));
        self
    }

    fn into_json(self, schemas: &Schemas) -> Value {
        let mut answer = json!({"description": self.doc});
        if !self.content.is_empty() {
            answer["content"] = contents(self.content, schemas);
        }
        let headers = self
            .headers
            .into_iter()
            .map(|(name, doc)| (name.to_owned(), json!({"description": doc, "schema": {"type": "string"}})));
        let headers: Map<String, Value> = headers.collect();
        if !headers.is_empty() {
            answer["headers"] = Value::Object(headers);
        }
        answer
    }
}

impl Operation {
    /// For this path, whose variable parts are in braces. Answers that have a name go to the others of that kind.
    pub fn into_json(self, path: &str, schemas: &Schemas, named: &mut Map<String, Value>) -> Value {
        let mut names = path.split(['{', '}']).skip(1).step_by(2);
        let parameters = self.parameters.into_iter().map(|parameter| parameter.into_json(&mut names));
        let parameters: Vec<Value> = parameters.collect();
        assert_eq!(names.next(), None, "the handler of {path} does not take all that varies in it");
        let mut operation = json!({});
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if !self.body.is_empty() {
            operation["requestBody"] = json!({"required": true, "content": contents(self.body, schemas)});
        }
        for answer in self.answers {
            let (status, name) = (answer.status, answer.name);
            let json = answer.into_json(schemas);
            operation["responses"][status] = match name {
                None => json,
                Some(name) => {
                    named.insert(name.to_owned(), json);
                    json!({"$ref": format!("#/components/responses/{name}")})
                }
            };
        }
        operation
    }
}

impl Parameter {
    fn into_json<'a>(self, names: &mut impl Iterator<Item = &'a str>) -> Value {
        let (name, place) = match self.place {
            Place::Path => (names.next().expect("the path has a part for each").to_owned(), "path"),
            Place::Query => (self.name, "query"),
            Place::Header => (self.name, "header"),
        };
        let mut schema = self.schema.not_null().into_json();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        let mut parameter = json!({"name": name, "in": place, "required": self.required, "schema": schema});
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    }
}

fn contents(contents: Vec<Content>, schemas: &Schemas) -> Value {
    Value::Object(contents.into_iter().map(|content| content.into_json(schemas)).collect())
}

/// An argument of a handler.
pub trait Input {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

/// What a handler returns.
pub trait Output {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

/// The variable parts of a path, from left to right.
pub trait Parts {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema>;
}

#[diagnostic::on_unimplemented(
    message = "the description cannot tell what this handler takes or answers",
    note = "every argument must be an `Input`, and the answer an `Output`: NoContent, Created, Accepted, Lines, Started, or one of your own",
    note = "types of bodies and queries derive `Describe`; those of other crates are in openapi/known.rs"
)]
/// A handler whose arguments `A` and answer tell what it is for.
pub trait Documented<A> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

macro_rules! documented {
    ($($argument:ident)*) => {
        impl<F, Answering, $($argument),*> Documented<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Answering,
            Answering: Future<Output: Output>,
            $($argument: Input,)*
        {
            fn describe(operation: &mut Operation, schemas: &mut Schemas) {
                $($argument::describe(operation, schemas);)*
                <Answering::Output as Output>::describe(operation, schemas);
            }
        }
    };
}

documented!();
documented!(A);
documented!(A B);
documented!(A B C);
documented!(A B C D);
documented!(A B C D E);

impl<S> Input for State<S> {
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

impl<T> Input for Extension<Arc<T>> {
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

impl<T: Describe> Parts for T {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
        vec![schemas.of::<T>()]
    }
}

impl<A: Describe, B: Describe> Parts for (A, B) {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
        vec![schemas.of::<A>(), schemas.of::<B>()]
    }
}

impl<A: Describe, B: Describe, C: Describe, D: Describe> Parts for (A, B, C, D) {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
        vec![schemas.of::<A>(), schemas.of::<B>(), schemas.of::<C>(), schemas.of::<D>()]
    }
}

impl<T: Describe> Output for Json<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let content = Content::json(schemas.of::<T>());
        operation.answers.push(Answer::new("200", "Done.").with(content));
    }
}

impl Output for NoContent {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.answers.push(Answer::new("204", "Done."));
    }
}

impl<T: Output, E: Output> Output for Result<T, E> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        T::describe(operation, schemas);
        E::describe(operation, schemas);
    }
}
