//! Chat templates against transformers itself: the renderings of `fixtures/transformers/chat`, which `make.py` there remakes.
//!
//! What this project never renders (tools, tool calls, contents that are no text) is left out, and counted.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_model::chat_template::{ChatTemplate, Date, Ending, Message, RenderOptions, Role};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Options that are no variables of the template.
const HOW: [&str; 4] = ["bos_token", "eos_token", "add_generation_prompt", "continue_final_message"];

fn messages(value: &Value) -> Option<Vec<Message>> {
    let message = |value: &Value| {
        let object = value.as_object().filter(|object| object.len() == 2)?;
        let role = match object["role"].as_str()? {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => return None,
        };
        Some(Message::new(role, object["content"].as_str()?))
    };
    value.as_array()?.iter().map(message).collect()
}

fn render(folder: &Path, template: &str, messages: &[Message], options: &Map<String, Value>) -> Result<String, String> {
    let is_set = |key: &str| options.get(key).and_then(Value::as_bool).unwrap_or(false);
    let ending = match (is_set("add_generation_prompt"), is_set("continue_final_message")) {
        (_, true) => Ending::ContinueFinalMessage,
        (true, false) => Ending::GenerationPrompt,
        (false, false) => Ending::Closed,
    };
    let model = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join(template), model.path().join("chat_template.jinja")).unwrap();
    let specials = json!({"bos_token": options.get("bos_token"), "eos_token": options.get("eos_token")});
    std::fs::write(model.path().join("tokenizer_config.json"), specials.to_string()).unwrap();
    let arguments = options.iter().filter(|(key, _)| !HOW.contains(&key.as_str()));
    let arguments = arguments.map(|(key, value)| (key.clone(), value.clone())).collect();
    let template = ChatTemplate::read(model.path()).map_err(|error| error.to_string())?.unwrap();
    let options = RenderOptions { ending, date: Date::new(2024, 7, 26), arguments };
    template.render(messages, &options).map_err(|error| error.to_string())
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transformers/chat");
    let text = std::fs::read_to_string(folder.join("renderings.jsonl")).unwrap();
    let (mut num_equal, mut num_refused, mut num_left_out) = (0, 0, 0);
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let options = case["options"].as_object().unwrap();
        let (Some(messages), false) = (messages(&case["messages"]), options.contains_key("tools")) else {
            num_left_out += 1;
            continue;
        };
        let ours = render(&folder, case["template"].as_str().unwrap(), &messages, options);
        match case["expected"].as_str() {
            Some(expected) => {
                assert_eq!(ours.as_deref(), Ok(expected), "{line}");
                num_equal += 1;
            }
            None => {
                assert!(ours.is_err(), "transformers refuses, we write {ours:?}: {line}");
                num_refused += 1;
            }
        }
    }
    assert!(num_equal >= 20 && num_refused >= 1, "{num_equal} equal, {num_refused} refused by both, {num_left_out} left out");
}
