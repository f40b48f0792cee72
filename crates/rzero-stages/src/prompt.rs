//! Prompt templates: a file of `pipelines/prompts`, rendered with a question or without.

use crate::exit::StageFailure;
use minijinja::{Environment, UndefinedBehavior, context};
use std::path::Path;

/// A template that was read and parsed.
#[derive(Debug)]
pub struct Prompt {
    environment: Environment<'static>,
    name: String,
}

impl Prompt {
    /// Parses the text of a template; `path` names it in errors.
    ///
    /// # Errors
    /// When the template does not parse.
    pub fn new(text: &str, path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment
            .add_template_owned(name.clone(), text.trim_end_matches('\n').to_owned())
            .map_err(|error| refuse(&name, &error))?;
        Ok(Self { environment, name })
    }

    /// Reads and parses a template file.
    ///
    /// # Errors
    /// When the file cannot be read or does not parse.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| StageFailure::usage(format!("cannot read the prompt template `{}`: {error}", path.display())))?;
        Self::new(&text, path)
    }

    /// The prompt with a question in it; a question in a template that asks for none is not looked at.
    ///
    /// # Errors
    /// When the template asks for something else.
    pub fn render(&self, question: &str) -> anyhow::Result<String> {
        let template = self.environment.get_template(&self.name).map_err(|error| refuse(&self.name, &error))?;
        Ok(template.render(context! { question }).map_err(|error| refuse(&self.name, &error))?)
    }
}

fn refuse(name: &str, error: &minijinja::Error) -> StageFailure {
    StageFailure::usage(format!("prompt template `{name}` cannot be rendered: {error}")).hint("the only variable is `question`")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn renders_the_question_and_refuses_other_names() {
        let render = |text: &str| Prompt::new(text, Path::new("p.jinja")).and_then(|prompt| prompt.render("1+{{2}}"));
        assert_eq!(render("<question>{{ question }}</question>\n").unwrap(), "<question>1+{{2}}</question>");
        assert!(render("{{ answer }}").is_err());
        assert!(render("{% for").is_err());
    }
}
