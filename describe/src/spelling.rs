//! How the names of fields and variants are spelled in JSON: serde's `rename_all`.

use syn::{Error, LitStr};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spelling {
    /// As in the source.
    #[default]
    Source,
    Lower,
    Snake,
    Kebab,
    Camel,
    Pascal,
}

impl Spelling {
    pub fn named(name: &LitStr) -> Result<Spelling, Error> {
        match name.value().as_str() {
            "lowercase" => Ok(Spelling::Lower),
            "snake_case" => Ok(Spelling::Snake),
            "kebab-case" => Ok(Spelling::Kebab),
            "camelCase" => Ok(Spelling::Camel),
            "PascalCase" => Ok(Spelling::Pascal),
            _ => Err(Error::new(name.span(), "a spelling that is not known here")),
        }
    }

    /// Of a name in snake_case.
    pub fn field(self, name: &str) -> String {
        match self {
            Spelling::Source | Spelling::Lower | Spelling::Snake => name.to_owned(),
            Spelling::Kebab => name.replace('_', "-"),
            Spelling::Pascal => name.split('_').map(capitalized).collect(),
            Spelling::Camel => uncapitalized(&Spelling::Pascal.field(name)),
        }
    }

    /// Of a name in PascalCase.
    pub fn variant(self, name: &str) -> String {
        match self {
            Spelling::Source | Spelling::Pascal => name.to_owned(),
            Spelling::Lower => name.to_lowercase(),
            Spelling::Snake => separated(name, '_'),
            Spelling::Kebab => separated(name, '-'),
            Spelling::Camel => uncapitalized(name),
        }
    }
}

fn capitalized(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_uppercase() + rest
}

fn uncapitalized(word: &str) -> String {
    let (first, rest) = word.split_at(word.len().min(1));
    first.to_lowercase() + rest
}

fn separated(name: &str, separator: char) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push(separator);
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_serde_spells_them() {
        let check = |spelling: Spelling, field: &str, variant: &str| {
            assert_eq!(spelling.field("queue_msg"), field, "{spelling:?}");
            assert_eq!(spelling.variant("QueueMsg"), variant, "{spelling:?}");
        };
        check(Spelling::Source, "queue_msg", "QueueMsg");
        check(Spelling::Lower, "queue_msg", "queuemsg");
        check(Spelling::Snake, "queue_msg", "queue_msg");
        check(Spelling::Kebab, "queue-msg", "queue-msg");
        check(Spelling::Camel, "queueMsg", "queueMsg");
        check(Spelling::Pascal, "QueueMsg", "QueueMsg");
    }
}
