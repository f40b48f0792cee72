//! The words that the grader knows: units and their other names, currencies, and texts that say the same.

/// Units by their name and the other ways to write them. What measures nothing has the empty name.
const UNITS: [(&str, &[&str]); 39] = [
    ("%", &["percent", "per cent", "pct", "percentage", "percentage points"]),
    ("°", &["degree", "degrees", "deg"]),
    (
        "",
        &[
            "unit",
            "units",
            "square units",
            "square unit",
            "cubic units",
            "cubic unit",
            "sq units",
            "units squared",
            "units cubed",
        ],
    ),
    ("dollar", &["dollars", "usd", "bucks"]),
    ("cent", &["cents"]),
    ("euro", &["euros", "eur"]),
    ("pound", &["pounds", "gbp", "lb", "lbs"]),
    ("rupee", &["rupees", "rs", "inr"]),
    ("m", &["meter", "meters", "metre", "metres"]),
    ("cm", &["centimeter", "centimeters", "centimetre", "centimetres"]),
    ("mm", &["millimeter", "millimeters", "millimetre", "millimetres"]),
    ("km", &["kilometer", "kilometers", "kilometre", "kilometres", "kms"]),
    ("in", &["inch", "inches"]),
    ("ft", &["foot", "feet"]),
    ("yd", &["yard", "yards"]),
    ("mi", &["mile", "miles"]),
    ("s", &["second", "seconds", "sec", "secs"]),
    ("min", &["minute", "minutes", "mins"]),
    ("h", &["hour", "hours", "hr", "hrs"]),
    ("day", &["days"]),
    ("week", &["weeks"]),
    ("month", &["months"]),
    ("year", &["years", "yr", "yrs"]),
    ("g", &["gram", "grams", "gm"]),
    ("kg", &["kilogram", "kilograms", "kgs"]),
    ("mg", &["milligram", "milligrams"]),
    ("l", &["liter", "liters", "litre", "litres"]),
    ("ml", &["milliliter", "milliliters"]),
    ("mph", &["miles per hour", "mi/h", "miles/hour"]),
    ("km/h", &["kmh", "kph", "km/hr", "kilometers per hour", "km per hour"]),
    ("m/s", &["meters per second", "m/sec", "metres per second"]),
    ("j", &["joule", "joules"]),
    ("n", &["newton", "newtons"]),
    ("w", &["watt", "watts"]),
    ("v", &["volt", "volts"]),
    ("k", &["kelvin", "kelvins"]),
    ("hz", &["hertz"]),
    ("mol", &["mole", "moles"]),
    ("rad", &["radian", "radians"]),
];

/// Letters that are a unit where they stand apart behind a number.
const LETTERS: [&str; 12] = ["m", "s", "g", "h", "L", "l", "N", "J", "W", "V", "K", "A"];

/// Words that say the same.
const SYNONYMS: [(&str, &str); 6] = [
    ("dne", "does not exist"),
    ("doesn't exist", "does not exist"),
    ("doesnt exist", "does not exist"),
    ("no solutions", "no solution"),
    ("none of the above", "none of these"),
    ("n/a", "not applicable"),
];

/// One name for a unit, in lower case, with its power.
pub(crate) fn unit_name(written: &str) -> Option<String> {
    let text = written.to_lowercase().replace(['.', '{', '}', ' '], " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ^", "^").replace("^ ", "^").replace(" / ", "/");
    if let Some(name) = known(&text) {
        return (!name.is_empty()).then(|| name.to_owned());
    }
    // `square cm`, `cm^2`, `sq. cm`.
    for (prefix, power) in [("square ", "^2"), ("sq ", "^2"), ("cubic ", "^3")] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return Some(format!("{}{power}", known(rest).unwrap_or(rest)));
        }
    }
    let (base, power) = text.split_at(text.find('^').unwrap_or(text.len()));
    let base = match known(base) {
        Some("") => return None,
        Some(name) => name,
        None => base,
    };
    // Of other words only the number is lost: apples and apple.
    let is_plural = power.is_empty() && base.len() > 3 && base.ends_with('s') && !base.ends_with("ss");
    Some(format!("{}{power}", if is_plural { &base[..base.len() - 1] } else { base }))
}

fn known(text: &str) -> Option<&'static str> {
    UNITS.iter().find(|(name, others)| *name == text || others.contains(&text)).map(|(name, _)| *name)
}

/// Whether a run of letters directly behind a number, or apart from it, is its unit.
pub(crate) fn is_unit(word: &str, is_apart: bool) -> bool {
    if word.len() == 1 {
        return is_apart && LETTERS.contains(&word);
    }
    known(&word.to_lowercase()).is_some()
}

/// The form in which words are compared; it is its own form.
pub(crate) fn plain_text(raw: &str) -> String {
    let mut text = plainer(raw);
    // What goes may leave a command behind that was none before: every round but the last drops a character.
    loop {
        let again = plainer(&text);
        if again == text {
            return text;
        }
        text = again;
    }
}

fn plainer(raw: &str) -> String {
    let mut text = raw.to_owned();
    for command in [
        "\\text",
        "\\textbf",
        "\\textit",
        "\\textrm",
        "\\mathrm",
        "\\mathbf",
        "\\mbox",
        "\\operatorname",
        "\\left",
        "\\right",
        "\\,",
        "\\!",
        "\\;",
        "\\ ",
    ] {
        if text.contains('\\') {
            let is_spacing = command.len() == 2;
            text = text.replace(&format!("{command}{{"), " {");
            if is_spacing {
                text = text.replace(command, " ");
            }
        }
    }
    let text: String =
        text.chars().map(|c| if matches!(c, '{' | '}' | '$' | '~' | '"' | '`' | '“' | '”') { ' ' } else { c }).collect();
    let text = text.replace(['’', '‘'], "'").replace(['−', '–', '—'], "-").to_lowercase();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.trim_matches(|c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | ' ')).to_owned();
    SYNONYMS.iter().find(|(other, _)| *other == text).map_or(text, |(_, same)| (*same).to_owned())
}
