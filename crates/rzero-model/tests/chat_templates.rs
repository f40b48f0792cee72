//! Chat templates: written in the manner of families in use, with texts worked out by hand; what Python's Jinja does; hostile ones.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use rzero_model::ModelError;
use rzero_model::chat_template::{ChatTemplate, Date, Ending, MAX_TEMPLATE_BYTES, Message, RenderOptions, Role, plain_text};
use serde_json::{Value, json};
use std::path::Path;

/// Turns between two marks, a system turn where none is given.
const MARKED: &str = "\
{% for message in messages %}
    {% if loop.first and messages[0]['role'] != 'system' %}
        {{ '<|im_start|>system\\nAnswer well.<|im_end|>\\n' }}
    {% endif %}
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
    {{ '<|im_start|>assistant\\n' }}
{% endif %}
";

/// Headers around roles, trimmed contents, a date unless one is given, the system's text taken out of the messages.
const HEADED: &str = "\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now('%d %b %Y') %}
    {%- else %}
        {%- set date_string = '26 Jul 2024' %}
    {%- endif %}
{%- endif %}
{#- the system's words come first, even if there are none #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}
    {{- raise_exception('no tools here') }}
{%- endif %}
{{- 'Today Date: ' + date_string + '\\n\\n' + system_message + eos }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant, not ' ~ message.role) }}
    {%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + eos }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}";

/// Thoughts are cut from all answers but those after the last question, which is found from the end.
const THINKING: &str = "\
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == 'user' and message.content is string and not message.content.startswith('<tool>') %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if message.get('reasoning') is string %}
            {%- set thought = message.reasoning %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
        {%- if loop.index0 > ns.last %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- endgeneration %}
        {{- '<|im_end|>\\n' }}
        {%- continue %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}";

fn template(text: &str) -> ChatTemplate {
    let specials = vec![("bos_token".to_owned(), json!("<|begin|>")), ("eos".to_owned(), json!("<|eot|>"))];
    ChatTemplate::new(text, specials, "model/chat_template.jinja".into()).unwrap()
}

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn ending(ending: Ending) -> RenderOptions {
    RenderOptions { ending, ..RenderOptions::default() }
}

/// What a template writes that asks for no messages.
fn written(text: &str) -> Result<String, String> {
    let template = ChatTemplate::new(text, Vec::new(), "t".into()).map_err(|error| error.to_string())?;
    template.render(&[user("Hi <b>&'\"")], &ending(Ending::Closed)).map_err(|error| error.to_string())
}

#[test]
fn turns_between_marks() {
    let marked = template(MARKED);
    let prompt = marked.render(&[user("2+2?")], &ending(Ending::GenerationPrompt)).unwrap();
    assert_eq!(
        prompt,
        "        <|im_start|>system\nAnswer well.<|im_end|>\n\n    <|im_start|>user\n2+2?<|im_end|>\n\n    <|im_start|>assistant\n\n"
    );
    let system = Message::new(Role::System, "Add.");
    let closed = marked.render(&[system.clone(), user("2+2?"), assistant("4")], &ending(Ending::Closed)).unwrap();
    let turn = |role: &str, text: &str| format!("    <|im_start|>{role}\n{text}<|im_end|>\n\n");
    assert_eq!(closed, [turn("system", "Add."), turn("user", "2+2?"), turn("assistant", "4")].concat());
    // White space that this template keeps is kept where the answer goes on.
    let begun = marked.render(&[system, user("2+2?"), assistant("Two and \n")], &ending(Ending::ContinueFinalMessage)).unwrap();
    assert_eq!(begun, [&turn("system", "Add."), &turn("user", "2+2?"), "    <|im_start|>assistant\nTwo and \n"].concat());
}

#[test]
fn headers_a_date_and_trimmed_contents() {
    let headed = template(HEADED);
    let turn = |role: &str, text: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}");
    let messages = [Message::new(Role::System, " Add. "), user(" 2+2?\n")];
    let expected = |date: &str, system: &str| {
        let system = turn("system", &format!("Today Date: {date}\n\n{system}<|eot|>"));
        format!("<|begin|>{system}{}", turn("user", "2+2?<|eot|>"))
    };
    let prompt = headed.render(&messages, &RenderOptions::default()).unwrap();
    assert_eq!(prompt, expected("26 Jul 2024", "Add.") + turn("assistant", "").as_str());
    let date = Date::new(2026, 11, 5);
    let dated = headed.render(&messages[1..], &RenderOptions { date, ..ending(Ending::Closed) }).unwrap();
    assert_eq!(dated, expected("05 Nov 2026", ""));
    let arguments = vec![("date_string".to_owned(), json!("today"))];
    let given = headed.render(&messages[1..], &RenderOptions { date, arguments, ending: Ending::Closed }).unwrap();
    assert_eq!(given, expected("today", ""));
    // This template trims: the space behind the answer's beginning is gone, and so it is in what the model reads.
    let begun = [messages[1].clone(), assistant("It is ")];
    let begun = headed.render(&begun, &ending(Ending::ContinueFinalMessage)).unwrap();
    assert_eq!(begun, expected("26 Jul 2024", "") + turn("assistant", "It is").as_str());
    let error = headed.render(&[user("a"), user("b")], &RenderOptions::default()).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, ModelError::ChatTemplate { .. }) && told.contains("model/chat_template.jinja"), "{told}");
    assert!(told.contains("roles must alternate user/assistant, not user"), "{told}");
}

#[test]
fn thoughts_are_cut_from_answers_before_the_last_question() {
    let thinking = template(THINKING);
    let turn = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
    let messages =
        [user("1+1?"), assistant("<think>\nhm\n</think>\n\n2"), user("2+2?"), assistant("<think>\n\nhm\n</think>\n\n4")];
    let closed = thinking.render(&messages, &ending(Ending::Closed)).unwrap();
    let before = [turn("user", "1+1?"), turn("assistant", "2"), turn("user", "2+2?")].concat();
    assert_eq!(closed, before.clone() + turn("assistant", "<think>\nhm\n</think>\n\n4").as_str());
    let silent = RenderOptions { arguments: vec![("enable_thinking".to_owned(), json!(false))], ..RenderOptions::default() };
    assert_eq!(thinking.render(&messages[..3], &RenderOptions::default()).unwrap(), before.clone() + "<|im_start|>assistant\n");
    let opened = "<|im_start|>assistant\n<think>\n\n</think>\n\n";
    assert_eq!(thinking.render(&messages[..3], &silent).unwrap(), before.clone() + opened);
    let begun = [&messages[..3], &[assistant("Four")]].concat();
    assert_eq!(thinking.render(&begun, &ending(Ending::ContinueFinalMessage)).unwrap(), before + opened + "Four");
}

#[test]
fn what_messages_say_is_never_a_template() {
    let text = "{{ raise_exception('x') }}{% for i in range(9) %}{{ bos_token }}{# #}{% endraw %} CONTINUE_FINAL_MESSAGE_TAG ";
    let plain = template("{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}");
    assert_eq!(plain.render(&[user(text)], &ending(Ending::Closed)).unwrap(), format!("[user|{text}]"));
    let begun = plain.render(&[user(text), assistant(text)], &ending(Ending::ContinueFinalMessage)).unwrap();
    assert_eq!(begun, format!("[user|{text}][assistant|{text}"));
    let deaf = template("{{ messages[0].content }}");
    let error = deaf.render(&[user("a"), assistant("b")], &ending(Ending::ContinueFinalMessage)).unwrap_err().to_string();
    assert!(error.contains("continued"), "{error}");
    assert!(deaf.render(&[], &ending(Ending::ContinueFinalMessage)).is_err());
}

/// Expected values are what jinja2 in the settings of transformers writes.
#[test]
fn templates_mean_what_they_mean_in_python() {
    let cases = [
        (
            "{{ true }} {{ none }} {{ [1, 'a', none] }} {{ {'b': 1.0, 'a': true} }}",
            "True None [1, 'a', None] {'b': 1.0, 'a': True}",
        ),
        ("{% set d = {'b': 1, 'a': [1, 2], 'c': {}} %}\n{{ d|tojson }}", r#"{"b": 1, "a": [1, 2], "c": {}}"#),
        (
            "{{ {'b': [1, {}], 'a': 'é\\n<>&\\''}|tojson(indent=2) }}",
            "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": \"é\\n<>&'\"\n}",
        ),
        (
            "{{ {'b': 'é😀', 'a': 1e-7}|tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
            r#"{"a":1e-07,"b":"\u00e9\ud83d\ude00"}"#,
        ),
        ("{{ messages|tojson }}", r#"[{"role": "user", "content": "Hi <b>&'\""}]"#),
        ("{{ messages[0].content }}{{ missing }}|{{ 'x' if missing }}", "Hi <b>&'\"|"),
        ("{% for k, v in {'y': 1, 'x': 2}.items() %}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}", "y=1, x=2"),
        ("{% for x in missing %}{{ x }}{% else %}none{% endfor %}", "none"),
        ("{{ 'abc'[::-1] }} {{ [1, 2, 3][-1] }} {{ [1, 2, 3][:-1] }} {{ 'a,b'.split(',')[1] }}", "cba 3 [1, 2] b"),
        ("{{ ' A b '.strip().upper() }}{{ 'x' ~ 1 }}{{ 'ab'.replace('a', 'c').endswith('b') }}", "A Bx1True"),
        ("{{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ 'a' in {'a': 1} }} {{ 7 // 2 }} {{ -7 % 3 }}", "None 2 True 3 2"),
        (
            "{{ {'a': 1} is mapping }}{{ [1] is iterable }}{{ [1] is sequence }}{{ 'a' is string }}{{ 1 is string }}",
            "TrueTrueTrueTrueFalse",
        ),
        ("{% macro f(a, b='z') %}({{ a }}{{ b }}){% endmacro %}{{ f('x') }}{{ f('x', b='y') }}", "(xz)(xy)"),
        ("a\n  {%- if true -%}\n  b\n  {%- endif %}\nc\n", "abc"),
        ("  {% if true %}\n  b\n  {% endif %}\nc\n\n", "  b\nc\n"),
        ("  {# note #}\nb{# note #}\nc", "bc"),
        ("  {%+ if true +%}\nb{% endif %}\r\nc\rd\r\n", "  \nbc\nd"),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 4 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "6",
        ),
        (
            "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}",
            "13",
        ),
        (
            "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='role')|join('+') }}{{ ['a', 'b']|join(', ') }}",
            "usera, b",
        ),
        ("{% set t %}\n x {{ 1 }}\n{% endset %}[{{ t|trim }}]{% raw %}{{ x }}{% endraw %}", "[x 1]{{ x }}"),
        (
            "{{ strftime_now is defined }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}",
            "FalseTrueTrueFalse",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
    }
    for text in [
        "{{ missing.attribute }}",
        "{{ missing + 'a' }}",
        "{{ missing|tojson }}",
        "{{ messages.append(1) }}",
        "{% include 'a' %}",
    ] {
        assert!(written(text).is_err(), "{text}");
    }
}

#[test]
fn a_template_without_end_or_measure_is_stopped() {
    let cases = [
        ("{% for i in range(10**9) %}x{% endfor %}", "range"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% set x = 'x' * 50000 %}{% for i in range(999) %}{{ x }}{% endfor %}", "bytes"),
        ("{{ 'x' * 10**12 }}", "steps"),
        ("{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "steps"),
        ("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}", ""),
        ("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}", ""),
        ("{% set ns = namespace(x=[1]) %}{% for i in range(60000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}", ""),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ""),
        ("{{ raise_exception('y' * 100000) }}", "yyy"),
        ("{% for", "chat template"),
        ("{{ 'a' | no_such_filter }}", "no_such_filter"),
    ];
    for (text, expected) in cases {
        let error = written(text).expect_err(text);
        assert!(error.contains(expected) && error.len() < 1000, "{text}: {error}");
    }
    for text in ["(", "[", "{{ ", "{% if 1 %}", "not ", "{{ 1 + ", "{{ {1:"] {
        let nested = format!("{{{{ {} }}}}", text.repeat(50_000));
        assert!(written(&nested).is_err());
        assert!(written(&text.repeat(40_000)).is_err() || !text.starts_with('{'));
    }
}

#[test]
fn templates_are_found_in_a_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let read = || ChatTemplate::read(folder.path());
    let rendered = || read().unwrap().unwrap().render(&[user("a")], &ending(Ending::Closed)).unwrap();
    let config = |template: Value| json!({"chat_template": template, "bos_token": {"content": "<b>"}, "eos_token": "<e>", "pad_token": null});
    assert!(read().unwrap().is_none());
    write("tokenizer_config.json", r#"{"bos_token": "<b>", "add_bos_token": true}"#);
    assert!(read().unwrap().is_none());
    let text = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token is defined }}";
    write("tokenizer_config.json", &config(json!(text)).to_string());
    assert_eq!(rendered(), "<b>a<e>False");
    let named = json!([{"name": "tool_use", "template": "no"}, {"name": "default", "template": text}]);
    write("tokenizer_config.json", &config(named).to_string());
    assert_eq!(rendered(), "<b>a<e>False");
    // A file of its own goes before.
    write("chat_template.jinja", "own {{ bos_token }}");
    assert_eq!(rendered(), "own <b>");
    write("chat_template.jinja", &" ".repeat(MAX_TEMPLATE_BYTES as usize + 1));
    assert!(read().unwrap_err().to_string().contains("chat_template.jinja"));
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let broken = [
        "",
        "[1]",
        "{",
        r#"{"chat_template": 1}"#,
        r#"{"chat_template": [{"name": "rag", "template": ""}]}"#,
        r#"{"chat_template": "{% if"}"#,
    ];
    for text in broken {
        write("tokenizer_config.json", text);
        let error = read().unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json"), "{text}: {error}");
    }
    write("tokenizer_config.json", &config(json!("x".repeat(MAX_TEMPLATE_BYTES as usize + 1))).to_string());
    assert!(read().is_err());
    assert!(ChatTemplate::read(Path::new("/nowhere")).unwrap().is_none());
}

#[test]
fn without_a_template_contents_are_joined_by_blank_lines_the_systems_first() {
    let messages = [user("a\n"), Message::new(Role::System, "s"), assistant("b")];
    assert_eq!(plain_text(&messages), "s\n\na\n\n\nb");
    assert_eq!(plain_text(&[]), "");
}

#[test]
fn names_that_a_rendering_sets_cannot_be_given() {
    for name in ["messages", "add_generation_prompt", "strftime_now"] {
        let options = RenderOptions { arguments: vec![(name.to_owned(), json!(1))], ..RenderOptions::default() };
        assert!(template("").render(&[], &options).unwrap_err().to_string().contains(name));
    }
}
