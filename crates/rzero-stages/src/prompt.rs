//! Prompts: a file of `pipelines/prompts`, rendered with a question or without, for the model that is to read it.
//!
//! A `.jinja` file is the text itself: the model sees what stands there and nothing else, whatever chat template it has. A `.toml` file is
//! a conversation, which the chat template of the model writes down:
//!
//! ```toml
//! prefill = "Let me"                  # optional: how the assistant's turn begins
//! arguments = { enable_thinking = false }  # optional: further variables of the chat template
//!
//! [[messages]]
//! role = "user"                       # system, user or assistant
//! content = "Solve: {{ question }}"   # a template; `question` is its variable; of a Verifier's prompt also `response`, and `other`
//! ```
//!
//! A model without a chat template reads a conversation in the plain form of [`plain_text`]. In either file a question is data: it is
//! never parsed as a template. That it spells out no special token, and so opens or closes no turn, is seen to by [`Policy::ask`].
//!
//! [`Policy::ask`]: crate::policy::Policy::ask

use crate::exit::StageFailure;
use crate::template::bounded_environment;
use minijinja::{Environment, context};
use rzero_model::chat_template::{ChatTemplate, Date, Ending, Message, RenderOptions, Role, plain_text};
use serde::Deserialize;
use std::path::Path;

/// The date that chat templates are told where they ask for one. It is that which the templates of Llama 3 take by themselves, and it
/// never changes, so that a prompt is the same on every day.
pub const PROMPT_DATE: Option<Date> = Date::new(2024, 7, 26);

/// A prompt file that was read and parsed, and the chat template of the model it is for.
#[derive(Debug)]
pub struct Prompt {
    environment: Environment<'static>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// The text itself; the name of its template.
    Text(String),
    /// A conversation.
    Conversation(Box<Conversation>),
}

#[derive(Debug)]
struct Conversation {
    /// Who speaks, and the name of the template of what is said.
    turns: Vec<(Role, String)>,
    prefill: Option<String>,
    options: RenderOptions,
    chat_template: Option<ChatTemplate>,
}

/// A `.toml` prompt as it is typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptFile {
    prefill: Option<String>,
    arguments: Option<serde_json::Map<String, serde_json::Value>>,
    messages: Vec<PromptMessage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptMessage {
    role: Role,
    content: String,
}

impl Prompt {
    /// Parses the text of a prompt file; `path` names it in errors and its ending tells the form. `model` is the folder of the model
    /// that is to read the prompt, if there is one yet; its chat template is looked at for a conversation only.
    ///
    /// # Errors
    /// When the file, or the chat template that it needs, cannot be used.
    pub fn new(text: &str, path: &Path, model: Option<&Path>) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let mut environment = bounded_environment();
        let mut add = |name: &str, text: &str| {
            let text = text.trim_end_matches('\n').to_owned();
            environment.add_template_owned(name.to_owned(), text).map_err(|error| refuse(name, &error))
        };
        if path.extension().is_none_or(|extension| extension != "toml") {
            add(&name, text)?;
            return Ok(Self { environment, form: Form::Text(name) });
        }
        let file: PromptFile = toml::from_str(text).map_err(|error| {
            StageFailure::usage(format!("prompt `{name}` is no conversation: {error}"))
                .hint("it holds `[[messages]]` with `role` and `content`, and perhaps `prefill` and `arguments`")
        })?;
        check_turns(&file, &name)?;
        let mut turns = Vec::new();
        for (index, message) in file.messages.iter().enumerate() {
            let name = format!("{name}, message {}", index + 1);
            add(&name, &message.content)?;
            turns.push((message.role, name));
        }
        let options = RenderOptions {
            ending: if file.prefill.is_some() { Ending::ContinueFinalMessage } else { Ending::GenerationPrompt },
            date: PROMPT_DATE,
            arguments: file.arguments.unwrap_or_default().into_iter().collect(),
        };
        let chat_template = model.map(ChatTemplate::read).transpose()?.flatten();
        let conversation = Conversation { turns, prefill: file.prefill, options, chat_template };
        Ok(Self { environment, form: Form::Conversation(Box::new(conversation)) })
    }

    /// Reads and parses a prompt file, as [`Prompt::new`].
    ///
    /// # Errors
    /// When the file cannot be read or used.
    pub fn read(path: &Path, model: Option<&Path>) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| StageFailure::usage(format!("cannot read the prompt template `{}`: {error}", path.display())))?;
        Self::new(&text, path, model)
    }

    /// The finished prompt with a question in it; a question in a prompt that asks for none is not looked at.
    ///
    /// # Errors
    /// When a template asks for something else, or the chat template refuses the conversation.
    pub fn render(&self, question: &str) -> anyhow::Result<String> {
        self.render_with(&context! { question })
    }

    /// The finished prompt with a question and a response to it.
    ///
    /// # Errors
    /// As [`Prompt::render`].
    pub fn render_response(&self, question: &str, response: &str) -> anyhow::Result<String> {
        self.render_with(&context! { question, response })
    }

    /// The finished prompt with a question and two responses to it, the first of them `response`, the second `other`.
    ///
    /// # Errors
    /// As [`Prompt::render`].
    pub fn render_comparison(&self, question: &str, response: &str, other: &str) -> anyhow::Result<String> {
        self.render_with(&context! { question, response, other })
    }

    /// The finished prompt with problems and their answers to look at: `anchors`, of which each has `question` and `answer`.
    ///
    /// # Errors
    /// As [`Prompt::render`].
    pub fn render_anchors(&self, anchors: &[(String, String)]) -> anyhow::Result<String> {
        let anchors: Vec<_> = anchors.iter().map(|(question, answer)| context! { question, answer }).collect();
        self.render_with(&context! { question => "", anchors })
    }

    fn render_with(&self, values: &minijinja::Value) -> anyhow::Result<String> {
        let Conversation { turns, prefill, options, chat_template } = match &self.form {
            Form::Text(name) => return self.render_one(name, values),
            Form::Conversation(conversation) => &**conversation,
        };
        let mut messages = turns
            .iter()
            .map(|(role, name)| Ok(Message { role: *role, content: self.render_one(name, values)? }))
            .collect::<anyhow::Result<Vec<_>>>()?;
        messages.extend(prefill.iter().map(|prefill| Message::new(Role::Assistant, prefill)));
        match chat_template {
            Some(chat_template) => Ok(chat_template.render(&messages, options)?),
            None => Ok(plain_text(&messages)),
        }
    }

    fn render_one(&self, name: &str, values: &minijinja::Value) -> anyhow::Result<String> {
        let template = self.environment.get_template(name).map_err(|error| refuse(name, &error))?;
        Ok(template.render(values).map_err(|error| refuse(name, &error))?)
    }
}

/// A prompt asks: its last message is the user's, and what the assistant begins with is `prefill`.
fn check_turns(file: &PromptFile, name: &str) -> anyhow::Result<()> {
    let problem = if file.messages.last().is_none_or(|message| message.role != Role::User) {
        "its last message is not the user's"
    } else if file.messages.iter().skip(1).any(|message| message.role == Role::System) {
        "only its first message can be the system's"
    } else if file.prefill.as_deref() == Some("") {
        "its prefill is empty"
    } else {
        return Ok(());
    };
    let hint = "examples are turns of user and assistant before the last user's; the assistant's own turn is begun by `prefill`, or left out";
    Err(StageFailure::usage(format!("prompt `{name}`: {problem}")).hint(hint).into())
}

fn refuse(name: &str, error: &minijinja::Error) -> StageFailure {
    StageFailure::usage(format!("prompt template `{name}` cannot be rendered: {error}"))
        .hint("the variables are `question`, of a Verifier's prompt `response`, and of a Challenger's `anchors`")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use crate::exit::{StageExit, exit_of, hints};

    const CONVERSATION: &str = r#"
        [[messages]]
        role = "system"
        content = "Be brief."
        [[messages]]
        role = "user"
        content = """
        Solve {{ question }}.
        """
    "#;

    fn toml(text: &str, model: Option<&Path>) -> anyhow::Result<String> {
        Prompt::new(text, Path::new("p.toml"), model)?.render("1+{{2}}")
    }

    #[test]
    fn renders_the_question_and_refuses_other_names() {
        let render = |text: &str| Prompt::new(text, Path::new("p.jinja"), None).and_then(|prompt| prompt.render("1+{{2}}"));
        assert_eq!(render("<question>{{ question }}</question>\n").unwrap(), "<question>1+{{2}}</question>");
        assert!(render("{{ answer }}").is_err());
        assert!(render("{% for").is_err());
        assert!(render("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}").is_err());
    }

    #[test]
    fn a_conversation_is_written_by_the_models_template_or_plainly() {
        let folder = tempfile::tempdir().unwrap();
        let model = Some(folder.path());
        let begun = format!("prefill = \"So, \"\n{CONVERSATION}");
        assert_eq!(toml(CONVERSATION, None).unwrap(), "Be brief.\n\n        Solve 1+{{2}}.\n        ");
        let plain = toml(&begun, model).unwrap();
        assert!(plain.ends_with("1+{{2}}.\n        \n\nSo, "), "{plain}");

        let template = "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</>\n{% endfor %}\
                        {% if add_generation_prompt %}<assistant>{{ mood }}{% endif %}";
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        let turns = "<system>Be brief.</>\n<user>Solve 1+{{2}}.</>\n<assistant>";
        assert_eq!(toml(CONVERSATION, model).unwrap(), turns);
        // The template trims, so the space that the prefill ends with is gone, as in transformers.
        assert_eq!(toml(&begun, model).unwrap(), format!("{turns}So,"));
        assert_eq!(toml(&format!("arguments = {{ mood = \"glad\" }}\n{CONVERSATION}"), model).unwrap(), format!("{turns}glad"));
        // A text is the prompt itself, for any model.
        let text = Prompt::new("Solve {{ question }}.", Path::new("p.jinja"), model).unwrap();
        assert_eq!(text.render("2").unwrap(), "Solve 2.");
    }

    #[test]
    fn a_conversation_that_cannot_be_used_is_refused_by_name() {
        let user = "[[messages]]\nrole = \"user\"\ncontent = \"{{ question }}\"\n";
        let cases = [
            ("temperature = 1\n[[messages]]\nrole = \"user\"\ncontent = \"a\"\n".to_owned(), "temperature"),
            (format!("{user}name = \"x\"\n"), "name"),
            (user.replace("user", "tool"), "tool"),
            ("messages = []\n".to_owned(), "user's"),
            (format!("{user}{}", user.replace("user", "assistant")), "user's"),
            (format!("{user}{}{user}", user.replace("user", "system")), "system's"),
            (format!("prefill = \"\"\n{user}"), "prefill"),
            (user.replace("question", "answer"), "message 1"),
        ];
        for (text, expected) in cases {
            let error = toml(&text, None).unwrap_err();
            assert!(error.to_string().contains("p.toml") && error.to_string().contains(expected), "{error}");
            assert_eq!((exit_of(&error), hints(&error).len()), (StageExit::Usage, 1));
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), "{{ raise_exception('no system turn') }}").unwrap();
        let error = toml(CONVERSATION, Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains("chat_template.jinja") && error.to_string().contains("no system turn"), "{error}");
        assert_eq!((exit_of(&error), hints(&error).len()), (StageExit::Input, 1));
    }
}
