//! Messages to the text that a model was taught to read: the chat template of a model folder, rendered as `transformers` renders it.
//!
//! The template is a Jinja program that came with the model, so it is bounded like any other input: the size of its file, the work it
//! does, the text it writes. What messages say is data: it is never parsed as a template. It may still spell out the tokens that open
//! and close turns; whoever puts a foreign text into a message asks [`crate::tokenizer::Tokenizer::holds_special_token`] first.
//!
//! Served beyond plain Jinja: Python's methods of strings and dicts, `tojson` as `json.dumps` writes, `raise_exception`, `break` and
//! `continue`, `{% generation %}` (which marks text and changes none) and `strftime_now`, which tells the date that the caller gives.
//! Absent: tools and documents (always `None`), messages of several parts, templates by other names than `default`.

mod date;
mod json;
mod methods;
mod source;

pub use date::Date;

use crate::error::ModelError;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use serde::Deserialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest template, bytes. Those in use have some thousand.
pub const MAX_TEMPLATE_BYTES: u64 = 1 << 18;

/// Longest tokenizer_config.json, bytes. It lists every added token, in some models tens of thousands.
pub const MAX_CONFIG_BYTES: u64 = 1 << 24;

/// Longest rendered text, bytes.
pub const MAX_RENDERED_BYTES: usize = 1 << 22;

/// Work of one rendering: about one unit an instruction and one for each 64 bytes of text that is made on the way. A conversation of
/// some messages takes a few hundred.
pub const MAX_WORK: u64 = 100_000;

/// Stack of a rendering, bytes; only what is used of it is ever taken. A template may put lists into lists, one for each unit of work,
/// and the engine goes down into them one call a level, if only to drop them.
const STACK_BYTES: usize = 1 << 28;

/// Files of a model folder, beside its tokenizer, that say how prompts are written. A copy of a model takes those that are there.
pub const TEMPLATE_FILES: [&str; 2] = [TEMPLATE_FILE, CONFIG_FILE];

const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";
const NAME: &str = "chat_template";

/// What stands behind the last message while it is rendered, to find its end again. The text is that of `transformers`, because some
/// templates look for it.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Names that a rendering sets itself.
const RESERVED_NAMES: [&str; 5] = ["messages", "tools", "documents", "add_generation_prompt", "strftime_now"];

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Standing instructions.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The word that templates know.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn.
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// How the rendered text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// The last turn is closed and nothing follows.
    Closed,
    /// The assistant's turn is opened and empty (`add_generation_prompt`).
    #[default]
    GenerationPrompt,
    /// The last message is left open, for the model to go on where it ends (`continue_final_message`).
    ContinueFinalMessage,
}

/// What a rendering depends on beside the messages.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RenderOptions {
    /// How the text ends.
    pub ending: Ending,
    /// What `strftime_now` tells, at midnight. Without a date there is no such function; templates that ask first (`strftime_now is
    /// defined`) then take a date of their own. The clock is never read, so equal messages give equal text on any day.
    pub date: Option<Date>,
    /// Further variables, such as `enable_thinking`.
    pub arguments: Vec<(String, serde_json::Value)>,
}

/// The chat template of a model.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    specials: Vec<(String, Value)>,
    path: PathBuf,
}

impl ChatTemplate {
    /// Reads the template of a model folder: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (a text, or a list
    /// of named ones of which `default` is taken). `None` where there is neither, as with most base models.
    ///
    /// # Errors
    /// When a file cannot be read, is too large or is not what it should be; when the template does not parse.
    pub fn read(folder: &Path) -> Result<Option<Self>, ModelError> {
        let config_path = folder.join(CONFIG_FILE);
        let config = source::read_config(&config_path)?;
        let own_path = folder.join(TEMPLATE_FILE);
        let (text, path) = match source::read_bounded(&own_path, MAX_TEMPLATE_BYTES)? {
            Some(text) => (Some(text), own_path),
            None => (source::configured_template(&config, &config_path)?, config_path),
        };
        text.map(|text| Self::new(&text, source::special_tokens(&config), path)).transpose()
    }

    /// Parses a template; `special_tokens` are variables such as `bos_token`, `path` names the template in errors.
    ///
    /// # Errors
    /// When the template is too long or does not parse.
    pub fn new(text: &str, special_tokens: Vec<(String, serde_json::Value)>, path: PathBuf) -> Result<Self, ModelError> {
        if text.len() as u64 > MAX_TEMPLATE_BYTES {
            return Err(refuse(&path, format!("it has {} bytes, at most {MAX_TEMPLATE_BYTES} are read", text.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| refuse(&path, told(&error)))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(MAX_WORK));
        environment.set_unknown_method_callback(methods::python_method);
        environment.add_filter("tojson", json::to_json);
        environment.add_filter("trim", methods::trim);
        environment.add_function("raise_exception", raise_exception);
        let text = source::as_jinja(text);
        with_room(&path, || environment.add_template_owned(NAME, text).map_err(|error| refuse(&path, told(&error))))?;
        let specials = special_tokens.into_iter().map(|(name, token)| (name, json::from_json(&token))).collect();
        Ok(Self { environment, specials, path })
    }

    /// Writes messages as the model was taught to read them.
    ///
    /// # Errors
    /// When the template refuses the messages (`raise_exception`), fails, works too long or writes too much; when a message is to be
    /// continued and the template does not write it.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, ModelError> {
        if let Some((name, _)) = options.arguments.iter().find(|(name, _)| RESERVED_NAMES.contains(&name.as_str())) {
            return Err(self.refuse(format!("`{name}` is set by the rendering itself and cannot be an argument")));
        }
        let is_continued = options.ending == Ending::ContinueFinalMessage;
        if is_continued && messages.is_empty() {
            return Err(self.refuse("there is no message to continue"));
        }
        let text = with_room(&self.path, || self.render_here(messages, options))?;
        if is_continued { self.up_to_tag(text) } else { Ok(text) }
    }

    fn render_here(&self, messages: &[Message], options: &RenderOptions) -> Result<String, ModelError> {
        let context = Value::from_pairs(self.variables(messages, options));
        let template = self.environment.get_template(NAME).map_err(|error| self.refuse(told(&error)))?;
        let mut rendered = Bounded { bytes: Vec::new(), is_full: false };
        let result = template.render_captured_to(context, &mut rendered).map(drop);
        if rendered.is_full {
            return Err(self.refuse(format!("it writes more than {MAX_RENDERED_BYTES} bytes")));
        }
        result.map_err(|error| self.refuse(told(&error)))?;
        String::from_utf8(rendered.bytes).map_err(|error| self.refuse(error.to_string()))
    }

    /// All variables of a rendering, by name.
    fn variables(&self, messages: &[Message], options: &RenderOptions) -> Vec<(String, Value)> {
        let is_continued = options.ending == Ending::ContinueFinalMessage;
        let messages: Value = messages
            .iter()
            .enumerate()
            .map(|(index, Message { role, content })| {
                let tag = if is_continued && index + 1 == messages.len() { CONTINUE_TAG } else { "" };
                Value::from_pairs([("role", role.as_str().to_owned()), ("content", format!("{content}{tag}"))])
            })
            .collect();
        let mut variables = self.specials.clone();
        variables.extend(options.arguments.iter().map(|(name, value)| (name.clone(), json::from_json(value))));
        variables.push(("messages".to_owned(), messages));
        variables.push(("tools".to_owned(), Value::from(())));
        variables.push(("documents".to_owned(), Value::from(())));
        variables.push(("add_generation_prompt".to_owned(), Value::from(options.ending == Ending::GenerationPrompt)));
        if let Some(date) = options.date {
            let told_date =
                move |format: &str| date.format(format).map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem));
            variables.push(("strftime_now".to_owned(), Value::from_function(told_date)));
        }
        variables
    }

    /// The text before the tag. Where the template trimmed the message, the tag lost its last space, and the white space before it
    /// goes as well, as in `transformers`.
    fn up_to_tag(&self, mut text: String) -> Result<String, ModelError> {
        let Some(at) = text.rfind(CONTINUE_TAG.trim_end()) else {
            return Err(self.refuse("it does not write the last message as it stands, so that it cannot be continued"));
        };
        let is_trimmed = !text[at..].starts_with(CONTINUE_TAG);
        text.truncate(at);
        if is_trimmed {
            text.truncate(text.trim_end_matches(methods::is_python_space).len());
        }
        Ok(text)
    }

    fn refuse(&self, problem: impl Into<String>) -> ModelError {
        refuse(&self.path, problem)
    }
}

/// Messages for a model without a chat template: what they say, joined by a blank line, the system's first, else in their order. No
/// names, no marks, nothing behind the last one: a message that is to be continued is simply the end of the text.
#[must_use]
pub fn plain_text(messages: &[Message]) -> String {
    let (system, others): (Vec<&Message>, Vec<&Message>) = messages.iter().partition(|message| message.role == Role::System);
    system.into_iter().chain(others).map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n")
}

/// Runs the engine where its stack has room.
fn with_room<T: Send>(path: &Path, work: impl FnOnce() -> Result<T, ModelError> + Send) -> Result<T, ModelError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(NAME.to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        thread.join().unwrap_or_else(|_| Err(refuse(path, "the template engine failed on it")))
    })
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("the template refuses the messages: {message}")))
}

fn refuse(path: &Path, problem: impl Into<String>) -> ModelError {
    ModelError::ChatTemplate { path: path.to_owned(), problem: problem.into() }
}

/// Longest problem that is told, characters: a part of it may be the template's own words.
const MAX_TOLD_CHARS: usize = 500;

fn told(error: &Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return format!("it does not end within {MAX_WORK} steps");
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text.chars().take(MAX_TOLD_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Output of a rendering, up to its limit.
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_full |= self.bytes.len() + bytes.len() > MAX_RENDERED_BYTES;
        if self.is_full {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
