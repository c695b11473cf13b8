//! `#[derive(Describe)]`: the schema of a type's JSON, made from the type itself, its doc comments and what it tells serde.
//!
//! What serde is told and is not understood here does not compile, so no schema says less than the type. A struct that denies
//! unknown fields is a request: what has a default, and every `Option`, may be missing. Any other is an answer: all fields are
//! there, but for those that are skipped in some cases.

mod serde_says;
mod spelling;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DataEnum, DataStruct, DeriveInput, Error, Expr, Field, Fields, Lit, LitStr, Meta, Type};
use syn::{Variant, parse_macro_input};

use serde_says::SerdeSays;

/// Implements `Describe`. `#[describe(name = "…")]` gives the schema another name than the type's, `#[describe(example = "…")]` an
/// example in JSON.
#[proc_macro_derive(Describe, attributes(describe))]
pub fn derive(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let says = SerdeSays::of(&input.attrs)?;
    let wishes = Wishes::of(&input.attrs)?;
    let doc = doc(&input.attrs);
    let schema = match &input.data {
        Data::Struct(data) => object(data, &says)?,
        Data::Enum(data) => choice(data, &says)?,
        Data::Union(data) => return Err(Error::new(data.union_token.span, "a union has no JSON")),
    };
    let mut parameters = input.generics.type_params().map(|parameter| &parameter.ident).peekable();
    let name = match (&wishes.name, parameters.peek()) {
        // What it is made of is different each time, so it has no name.
        (_, Some(_)) => quote!(None),
        (Some(name), None) => quote!(Some(#name)),
        (None, None) => {
            let name = input.ident.to_string();
            quote!(Some(#name))
        }
    };
    let example = wishes.example.map(|json| quote!(.with_example(#json)));
    let ident = &input.ident;
    let (impl_generics, type_generics, _) = input.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics crate::openapi::Describe for #ident #type_generics
        where
            #(#parameters: crate::openapi::Describe),*
        {
            const NAME: Option<&'static str> = #name;
            fn schema(schemas: &mut crate::openapi::Schemas) -> crate::openapi::Schema {
                #schema.with_description(#doc)#example
            }
        }
    })
}

fn object(data: &DataStruct, says: &SerdeSays) -> Result<TokenStream, Error> {
    let Fields::Named(named) = &data.fields else {
        return Err(Error::new_spanned(&data.fields, "only structs with named fields are JSON objects"));
    };
    members(named.named.iter(), says)
}

/// An object with these members.
fn members<'a>(fields: impl Iterator<Item = &'a Field>, says: &SerdeSays) -> Result<TokenStream, Error> {
    let (strict, members) = (says.deny_unknown_fields, fields.map(|field| member(field, says)));
    let members = members.collect::<Result<Vec<_>, Error>>()?;
    Ok(quote!(crate::openapi::Schema::object(#strict, [#(#members),*])))
}

fn member(field: &Field, container: &SerdeSays) -> Result<TokenStream, Error> {
    let says = SerdeSays::of(&field.attrs)?;
    let ident = field.ident.as_ref().expect("named fields have names").to_string();
    let (name, doc, kind) =
        (says.rename.unwrap_or_else(|| container.spelling.field(&ident)), doc(&field.attrs), &field.ty);
    let may_be_missing = if container.deny_unknown_fields {
        container.default || says.default || is_option(kind)
    } else {
        says.skip_serializing_if
    };
    let required = !may_be_missing;
    Ok(quote! {
        crate::openapi::Member { name: #name, doc: #doc, required: #required, schema: schemas.of::<#kind>() }
    })
}

/// An enum as serde tags it from outside: a word, or an object with the word as its only key.
fn choice(data: &DataEnum, says: &SerdeSays) -> Result<TokenStream, Error> {
    let (mut words, mut objects) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        let (word, doc) = (word(variant, says)?, doc(&variant.attrs));
        let schema = match &variant.fields {
            Fields::Unit => {
                words.push(quote!((#word, #doc)));
                continue;
            }
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let kind = &fields.unnamed[0].ty;
                quote!(schemas.of::<#kind>())
            }
            Fields::Named(fields) => members(fields.named.iter(), &SerdeSays::default())?,
            Fields::Unnamed(_) => {
                return Err(Error::new_spanned(variant, "a variant with several values has no schema"));
            }
        };
        objects.push(quote!((#word, #doc, #schema)));
    }
    Ok(quote!(crate::openapi::Schema::choice(&[#(#words),*], [#(#objects),*])))
}

fn word(variant: &Variant, container: &SerdeSays) -> Result<String, Error> {
    let says = SerdeSays::of(&variant.attrs)?;
    Ok(says.rename.unwrap_or_else(|| container.spelling.variant(&variant.ident.to_string())))
}

/// What the type asks of this macro.
#[derive(Default)]
struct Wishes {
    name: Option<LitStr>,
    example: Option<LitStr>,
}

impl Wishes {
    fn of(attributes: &[Attribute]) -> Result<Wishes, Error> {
        let mut wishes = Wishes::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("describe")) {
            attribute.parse_nested_meta(|meta| {
                let wish = if meta.path.is_ident("name") {
                    &mut wishes.name
                } else if meta.path.is_ident("example") {
                    &mut wishes.example
                } else {
                    return Err(meta.error("name or example"));
                };
                *wish = Some(meta.value()?.parse()?);
                Ok(())
            })?;
        }
        Ok(wishes)
    }
}

/// The doc comment in one line; an empty line in it stays an end of a paragraph.
fn doc(attributes: &[Attribute]) -> String {
    let mut doc = String::new();
    for line in attributes.iter().filter_map(doc_line) {
        match line.trim() {
            "" => doc.push_str("\n\n"),
            line if doc.is_empty() || doc.ends_with('\n') => doc.push_str(line),
            line => {
                doc.push(' ');
                doc.push_str(line);
            }
        }
    }
    // Links lead to other types of the source.
    doc.replace("[`", "`").replace("`]", "`")
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    let Expr::Lit(value) = &pair.value else { return None };
    match &value.lit {
        Lit::Str(line) if pair.path.is_ident("doc") => Some(line.value()),
        _ => None,
    }
}

fn is_option(kind: &Type) -> bool {
    let Type::Path(path) = kind else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Option")
}
