//! What a type, a field or a variant tells serde about its JSON.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, LitStr, Token};

use crate::spelling::Spelling;

#[derive(Default)]
pub struct SerdeSays {
    pub spelling: Spelling,
    pub rename: Option<String>,
    pub deny_unknown_fields: bool,
    pub default: bool,
    pub skip_serializing_if: bool,
}

impl SerdeSays {
    pub fn of(attributes: &[Attribute]) -> Result<SerdeSays, Error> {
        let mut says = SerdeSays::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            attribute.parse_nested_meta(|meta| says.hear(&meta))?;
        }
        Ok(says)
    }

    fn hear(&mut self, meta: &ParseNestedMeta) -> Result<(), Error> {
        let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match name.as_str() {
            "rename_all" => self.spelling = Spelling::named(&meta.value()?.parse()?)?,
            "rename" => self.rename = Some(meta.value()?.parse::<LitStr>()?.value()),
            "deny_unknown_fields" => self.deny_unknown_fields = true,
            "default" => {
                self.default = true;
                pass_over(meta)?;
            }
            "skip_serializing_if" => {
                self.skip_serializing_if = true;
                pass_over(meta)?;
            }
            // How it is read changes nothing of what may be written.
            "deserialize_with" => pass_over(meta)?,
            _ => return Err(meta.error("what this makes of the JSON has no schema yet")),
        }
        Ok(())
    }
}

fn pass_over(meta: &ParseNestedMeta) -> Result<(), Error> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<Expr>()?;
    }
    Ok(())
}
