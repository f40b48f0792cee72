//! Texts with blanks, such as prompts: strict about names, bounded in work, and blind to what stands in the values.

use crate::exit::StageFailure;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Work of one rendering, in the engine's steps.
const MAX_WORK: u64 = 100_000;

/// An environment in which a name that is not given is an error, and a template that does not end is stopped.
#[must_use]
pub fn bounded_environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(MAX_WORK));
    environment
}

/// JSON as templates take it; members of objects in the order of their names.
#[must_use]
pub fn json_value(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(value),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => items.into_iter().map(json_value).collect(),
        Json::Object(members) => {
            Value::from(members.into_iter().map(|(key, member)| (key, json_value(member))).collect::<BTreeMap<String, Value>>())
        }
    }
}

/// One text with blanks that was read and parsed.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    name: String,
    /// The names that it may use, as people read them.
    variables: &'static str,
}

impl Template {
    /// Parses a text; `path` names it in errors, and `variables` the names that will be given.
    ///
    /// # Errors
    /// When it is no template.
    pub fn new(text: &str, path: &Path, variables: &'static str) -> anyhow::Result<Self> {
        let mut template = Self { environment: bounded_environment(), name: path.display().to_string(), variables };
        let text = text.trim_end_matches('\n').to_owned();
        template.environment.add_template_owned(template.name.clone(), text).map_err(|error| template.refuse(&error))?;
        Ok(template)
    }

    /// The text with its blanks filled. Values are data: they are never parsed as a template.
    ///
    /// # Errors
    /// When the template asks for a name that is not given, or does not end.
    pub fn render(&self, values: Value) -> anyhow::Result<String> {
        let template = self.environment.get_template(&self.name).map_err(|error| self.refuse(&error))?;
        Ok(template.render(values).map_err(|error| self.refuse(&error))?)
    }

    fn refuse(&self, error: &minijinja::Error) -> StageFailure {
        StageFailure::usage(format!("prompt template `{}` cannot be rendered: {error}", self.name))
            .hint(format!("its variables: {}", self.variables))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use minijinja::context;

    #[test]
    fn values_are_data_and_other_names_are_refused() {
        let render =
            |text: &str| Template::new(text, Path::new("p.jinja"), "question")?.render(context! { question => "{{ gold }} 1+1" });
        assert_eq!(render("Q: {{ question }}\n").unwrap(), "Q: {{ gold }} 1+1");
        for text in ["{{ gold }}", "{% for", "{% for a in range(9000) %}{% for b in range(9000) %}{% endfor %}{% endfor %}"] {
            let error = render(text).unwrap_err();
            assert!(error.to_string().contains("p.jinja"), "{error}");
        }
    }
}
