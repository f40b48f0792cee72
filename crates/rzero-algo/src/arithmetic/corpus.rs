//! Random expressions and worked solutions with human-like slips: the raw material of the base model's synthetic corpus.

use super::expression::{Expression, MAX_MAGNITUDE, Operator};
use crate::seed::{RandomStream, uniform_below, uniform_f64};
use rzero_schema::pretrain_profile::CorpusSettings;

/// Most operators of a random expression.
const MAX_OPERATORS: u32 = 40;
/// How many trees are drawn before a rule counts as unsatisfiable.
const MAX_ATTEMPTS: u32 = 10_000;
/// What slips beyond one and ten are off by.
const OTHER_SLIPS: [i64; 3] = [2, 3, 5];

/// Whether a question belongs to the held-out eighth of all questions, by its hash.
///
/// The corpus draws none of these and every ladder only these, so that the two are disjoint whatever their seeds.
#[must_use]
pub fn is_held_out(question: &str) -> bool {
    blake3::hash(question.as_bytes()).as_bytes()[0].is_multiple_of(8)
}

/// Draws an expression of so many operators (at most 40).
///
/// Trees are drawn until one keeps every bound of the rule. A rule that 10,000 trees in a row break is taken for unsatisfiable,
/// and the answer is `1+1-1+1...`, the plainest expression of that many operators.
#[must_use]
pub fn random_expression(num_operators: u32, rule: &CorpusSettings, stream: &mut RandomStream) -> Expression {
    let num_operators = num_operators.min(MAX_OPERATORS);
    let may_be_negative = uniform_f64(stream) < rule.negative_share;
    for _ in 0..MAX_ATTEMPTS {
        let expression = random_tree(num_operators, rule, stream);
        if bounded_value(&expression, rule, may_be_negative).is_some() && expression.to_string().len() <= rule.max_question_chars
        {
            return expression;
        }
    }
    let mut plain = Expression::Number(1);
    for index in 0..num_operators {
        let operator = if index % 2 == 0 { Operator::Add } else { Operator::Subtract };
        plain = Expression::binary(operator, plain, Expression::Number(1));
    }
    plain
}

/// Works an expression out, one operation a line, always the leftmost that is ready.
///
/// A line is the whole expression after the operation. With a slip rule each operation may come out wrong, and the lines after it
/// go on from the wrong value. Returns the lines and the value reached, which is the value of the last line, or of the expression
/// itself where there is nothing to do. Every number written has at most nine digits.
#[must_use]
pub fn worked_lines(expression: &Expression, slip: Option<&CorpusSettings>, stream: &mut RandomStream) -> (Vec<String>, i64) {
    let mut lines = Vec::new();
    let mut current = expression.clone();
    loop {
        if let Expression::Number(value) = current {
            return (lines, value);
        }
        current.reduce_leftmost(&mut |operator, left, right| {
            let value = bounded_result(operator, left, right);
            slip.map_or(value, |rule| with_slip(value, rule, stream))
        });
        lines.push(current.to_string());
    }
}

/// Worked lines as one text: each behind an equals sign, `=3*4=12`.
#[must_use]
pub fn worked_text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["=", line.as_str()]).collect()
}

/// A value as a person who slips now and then writes it. A slip that would leave the nine digits is not made.
///
/// For an answer given at once, without lines, this is the only place where it can go wrong.
#[must_use]
pub fn with_slip(value: i64, rule: &CorpusSettings, stream: &mut RandomStream) -> i64 {
    if uniform_f64(stream) >= rule.slip_probability {
        return value;
    }
    let kind = uniform_f64(stream);
    let distance = if kind < rule.slip_by_one_share {
        1
    } else if kind < rule.slip_by_one_share + rule.slip_by_ten_share {
        10
    } else {
        OTHER_SLIPS[uniform_below(stream, OTHER_SLIPS.len() as u64) as usize]
    };
    let slipped = if uniform_below(stream, 2) == 0 { value.saturating_add(distance) } else { value.saturating_sub(distance) };
    if (-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(&slipped) { slipped } else { value }
}

fn random_tree(num_operators: u32, rule: &CorpusSettings, stream: &mut RandomStream) -> Expression {
    if num_operators == 0 {
        return Expression::Number(random_number(rule, stream));
    }
    let kind = uniform_f64(stream);
    let operator = if kind < rule.multiply_share {
        Operator::Multiply
    } else if kind < rule.multiply_share + rule.plus_share {
        Operator::Add
    } else {
        Operator::Subtract
    };
    let num_left = if uniform_f64(stream) < rule.left_leaning_share {
        num_operators - 1
    } else {
        uniform_below(stream, u64::from(num_operators)) as u32
    };
    let left = random_tree(num_left, rule, stream);
    let right = random_tree(num_operators - 1 - num_left, rule, stream);
    Expression::binary(operator, left, right)
}

fn random_number(rule: &CorpusSettings, stream: &mut RandomStream) -> i64 {
    if uniform_f64(stream) < rule.two_digit_share {
        10 + uniform_below(stream, 90) as i64
    } else if uniform_f64(stream) < rule.zero_share {
        0
    } else {
        1 + uniform_below(stream, 9) as i64
    }
}

/// The value, if it and everything on the way keep the rule's bounds.
fn bounded_value(expression: &Expression, rule: &CorpusSettings, may_be_negative: bool) -> Option<i64> {
    let value = match expression {
        Expression::Number(value) => *value,
        Expression::Binary { operator, left, right } => {
            let left = bounded_value(left, rule, may_be_negative)?;
            let right = bounded_value(right, rule, may_be_negative)?;
            if *operator == Operator::Multiply {
                let (smaller, larger) = (left.abs().min(right.abs()), left.abs().max(right.abs()));
                if smaller > rule.small_factor || larger > rule.max_factor {
                    return None;
                }
            }
            operator.apply(left, right)?
        }
    };
    (value.abs() <= rule.max_intermediate && (may_be_negative || value >= 0)).then_some(value)
}

/// The result of an operation, held within nine digits: expressions from this domain never leave them, slips can make them.
fn bounded_result(operator: Operator, left: i64, right: i64) -> i64 {
    let exact = match operator {
        Operator::Add => left.saturating_add(right),
        Operator::Subtract => left.saturating_sub(right),
        Operator::Multiply => left.saturating_mul(right),
    };
    exact.clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use crate::arithmetic::{parse, reduction_steps};
    use crate::seed::{StreamKey, random_stream};
    use proptest::prelude::*;
    use rzero_schema::vocab::Phase;

    fn rule() -> CorpusSettings {
        CorpusSettings {
            challenger_share: 0.15,
            challenger_operator_shares: vec![1.0],
            worked_share: 0.5,
            slip_probability: 0.04,
            slip_by_one_share: 0.5,
            slip_by_ten_share: 0.3,
            two_digit_share: 0.15,
            zero_share: 0.015,
            multiply_share: 0.30,
            plus_share: 0.385,
            left_leaning_share: 0.6,
            max_intermediate: 999,
            max_factor: 99,
            small_factor: 9,
            negative_share: 0.25,
            max_question_chars: 26,
        }
    }

    fn stream(seed: u64) -> RandomStream {
        let key = StreamKey { run_seed: seed, iteration: 0, phase: Phase::Solver, step: 0, row: 0, sample: 0 };
        random_stream("expression", &key)
    }

    #[test]
    fn shares_are_what_the_rule_says() {
        let mut stream = stream(1);
        let mut signs = [0_u32; 3];
        let mut num_two_digits = 0;
        let mut num_with_negatives = 0;
        let total = 20_000;
        for _ in 0..total {
            // One operator and loose bounds, so that refusals do not bend the shares; negatives need a subtraction.
            let loose = CorpusSettings { max_factor: 999, small_factor: 999, max_intermediate: 9_999, ..rule() };
            let expression = random_expression(1, &CorpusSettings { negative_share: 1.0, ..loose }, &mut stream);
            let Expression::Binary { operator, left, .. } = &expression else { panic!("one operator") };
            signs[*operator as usize] += 1;
            num_two_digits += u32::from(matches!(**left, Expression::Number(10..)));
            num_with_negatives += u32::from(expression.evaluate() < Some(0));
        }
        let share = |count: u32| f64::from(count) / f64::from(total);
        assert!((share(signs[0]) - 0.385).abs() < 0.015);
        assert!((share(signs[2]) - 0.30).abs() < 0.015);
        assert!((share(num_two_digits) - 0.15).abs() < 0.01);
        assert!(num_with_negatives > 0);
    }

    #[test]
    fn an_impossible_rule_still_gives_an_expression() {
        let impossible = CorpusSettings { max_question_chars: 0, ..rule() };
        let expression = random_expression(3, &impossible, &mut stream(2));
        assert_eq!(expression.to_string(), "1+1-1+1");
        assert_eq!(random_expression(u32::MAX, &impossible, &mut stream(2)).num_operators(), MAX_OPERATORS);
    }

    #[test]
    fn without_slips_the_lines_are_the_reduction() {
        let expression = parse("(1+2)*(3-7)").expect("an expression");
        let (lines, value) = worked_lines(&expression, None, &mut stream(3));
        assert_eq!((lines.as_slice(), value), (["3*(3-7)", "3*(-4)", "-12"].map(String::from).as_slice(), -12));
        assert_eq!(worked_text(&lines), "=3*(3-7)=3*(-4)=-12");
        let number = worked_lines(&Expression::Number(5), None, &mut stream(3));
        assert_eq!(number, (Vec::new(), 5));
    }

    #[test]
    fn slips_are_as_frequent_and_as_large_as_the_rule_says() {
        let mut stream = stream(4);
        let mut counts = std::collections::BTreeMap::new();
        let total = 100_000;
        for _ in 0..total {
            *counts.entry(with_slip(100, &rule(), &mut stream) - 100).or_insert(0_u32) += 1;
        }
        let share = |slip: i64| f64::from(counts.get(&slip).copied().unwrap_or(0)) / f64::from(total);
        assert!((share(0) - 0.96).abs() < 0.003);
        assert!((share(1) + share(-1) - 0.02).abs() < 0.002);
        assert!((share(10) + share(-10) - 0.012).abs() < 0.002);
        assert!(counts.keys().all(|slip| [0, 1, 2, 3, 5, 10].contains(&slip.abs())));
    }

    proptest! {
        #[test]
        fn random_expressions_keep_the_rule(seed: u64, num_operators in 0_u32..7) {
            let rule = rule();
            let expression = random_expression(num_operators, &rule, &mut stream(seed));
            let text = expression.to_string();
            prop_assert_eq!(expression.num_operators(), num_operators);
            prop_assert!(text.len() <= rule.max_question_chars);
            prop_assert!(bounded_value(&expression, &rule, true).is_some());
            prop_assert_eq!(parse(&text), Some(expression.clone()));
            prop_assert_eq!(random_expression(num_operators, &rule, &mut stream(seed)), expression);
        }

        #[test]
        fn slipped_lines_can_be_read_and_lead_to_the_value(seed: u64, num_operators in 0_u32..6) {
            let mut stream = stream(seed);
            let expression = random_expression(num_operators, &rule(), &mut stream);
            let always = CorpusSettings { slip_probability: 1.0, ..rule() };
            let (lines, value) = worked_lines(&expression, Some(&always), &mut stream);
            prop_assert_eq!(lines.len(), num_operators as usize);
            for line in &lines {
                prop_assert!(parse(line).is_some(), "{}", line);
            }
            if let Some(last) = lines.last() {
                prop_assert_eq!(last, &value.to_string());
            }
            let (true_lines, true_value) = worked_lines(&expression, None, &mut stream);
            prop_assert_eq!(Some(true_value), expression.evaluate());
            let steps: Vec<String> = reduction_steps(&expression).iter().map(ToString::to_string).collect();
            prop_assert_eq!(true_lines, steps);
        }

        #[test]
        fn hand_built_extremes_are_worked_without_panic(left: i64, right: i64, seed: u64) {
            let expression = Expression::binary(Operator::Multiply, Expression::Number(left), Expression::Number(right));
            let (_, value) = worked_lines(&expression, Some(&rule()), &mut stream(seed));
            prop_assert!(value.abs() <= MAX_MAGNITUDE);
        }
    }
}
