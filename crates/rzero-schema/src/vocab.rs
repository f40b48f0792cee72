//! The closed vocabularies of the project: every enum whose values appear as words in tables, manifests, paths and profiles.
//!
//! Each enum is written once, with its word; `as_str`, `Display`, `FromStr`, serde and the list of all values follow from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A word that does not belong to its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {vocabulary} `{word}`, expected one of: {expected}")]
pub struct UnknownWord {
    /// Name of the vocabulary, for example `FinishReason`.
    pub vocabulary: &'static str,
    /// The word that was found.
    pub word: String,
    /// The words that are allowed, separated by commas.
    pub expected: String,
}

macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word that stands in tables, manifests and paths.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord {
                        vocabulary: stringify!($name),
                        word: word.chars().take(80).collect(),
                        expected: Self::ALL.iter().map(|value| value.as_str()).collect::<Vec<_>>().join(", "),
                    }),
                }
            }
        }
    };
}

vocabulary! {
    /// Which of the policies wrote a completion.
    Role {
        /// Writes questions.
        Challenger = "challenger",
        /// Answers them.
        Solver = "solver",
        /// Judges answers, where the profile has three roles.
        Verifier = "verifier",
    }
}

vocabulary! {
    /// A part of an iteration; also the folder its stages write to.
    Phase {
        /// Training the Challenger against the frozen Solver.
        Challenger = "challenger",
        /// Writing, labelling and filtering the candidates that the Solver will train on.
        Curriculum = "curriculum",
        /// Training the Verifier towards the consensus on the candidates, where the profile has three roles.
        Verifier = "verifier",
        /// Training the Solver on the curriculum.
        Solver = "solver",
        /// Held-out evaluation of a checkpoint.
        Eval = "eval",
    }
}

vocabulary! {
    /// A stage binary.
    Stage {
        /// Challenger checkpoint to questions.
        ChallengeGen = "challenge-gen",
        /// Solver checkpoint and questions to answers.
        SolveSample = "solve-sample",
        /// Verifier checkpoint and answers to verdicts.
        Verify = "verify",
        /// Answers to pseudo-labels.
        VoteLabel = "vote-label",
        /// Labels to curriculum and dropped rows.
        Filter = "filter",
        /// Questions to the memory of all that was ever asked.
        Remember = "remember",
        /// Curriculum to the share of its labels that is true.
        LabelProbe = "label-probe",
        /// Parts of the gradient of one update, for a step that is shared out.
        GrpoGradient = "grpo-gradient",
        /// One policy update.
        GrpoStep = "grpo-step",
        /// Checkpoint to held-out results.
        Eval = "eval",
        /// Held-out results to a second opinion on their grades.
        Judge = "judge",
        /// Synthetic corpus to base model.
        Pretrain = "pretrain",
        /// Seed to held-out ladder of problems.
        MakeLadder = "make-ladder",
        /// Files of problems to held-out set.
        ImportBenchmark = "import-benchmark",
    }
}

vocabulary! {
    /// Why generation of a completion ended.
    FinishReason {
        /// The model produced a stop token (kept as the last completion token).
        Stop = "stop",
        /// The length limit was reached: the completion is truncated.
        Length = "length",
    }
}

vocabulary! {
    /// What became of a Challenger completion when it was read as a question.
    ChallengeStatus {
        /// One question between one pair of tags, with a boxed answer, well-formed in its domain.
        Ok = "ok",
        /// The completion hit the length limit.
        Truncated = "truncated",
        /// No opening question tag, or no closing one.
        NoQuestion = "no_question",
        /// More than one opening or closing question tag.
        SeveralQuestions = "several_questions",
        /// Nothing but white space between the tags.
        EmptyQuestion = "empty_question",
        /// The question is longer than the profile allows.
        QuestionTooLong = "question_too_long",
        /// No balanced boxed answer after the question.
        NoBoxedAnswer = "no_boxed_answer",
        /// The question spells out a special token of the tokenizer, such as an end of turn.
        SpecialToken = "special_token",
        /// The domain's own rule refuses the question, for instance an expression that does not parse.
        NotInDomain = "not_in_domain",
        /// The token bytes are not valid UTF-8.
        InvalidUtf8 = "invalid_utf8",
    }
}

vocabulary! {
    /// What became of a Solver completion when its final answer was read.
    AnswerStatus {
        /// A boxed answer was found and has a canonical form.
        Parsed = "parsed",
        /// The completion hit the length limit; it does not vote, and stays in the denominator.
        Truncated = "truncated",
        /// No box at all.
        NoBox = "no_box",
        /// The last `\boxed{` is never closed.
        UnbalancedBox = "unbalanced_box",
        /// The box is empty.
        EmptyBox = "empty_box",
        /// The answer exceeds the length bound.
        AnswerTooLong = "answer_too_long",
        /// The answer is not of a form that the answer rule reads.
        NotReadable = "not_readable",
        /// The token bytes are not valid UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// The question could not be put to the model: it leaves no room for an answer, or spells out a special token.
        NotAsked = "not_asked",
    }
}

vocabulary! {
    /// What the grader says of two answers.
    Verdict {
        /// They are the same answer.
        Equal = "equal",
        /// They are not.
        Different = "different",
        /// It cannot tell; never counted as equal.
        Unknown = "unknown",
    }
}

vocabulary! {
    /// Why the grader says so.
    GradeReason {
        /// Both have the same canonical form.
        SameForm = "same_form",
        /// Both are the same exact number.
        SameValue = "same_value",
        /// Both are the same rational function of their variables.
        SameFunction = "same_function",
        /// Both agree to 30 digits, as numbers or at fixed points of their variables.
        SameNumerically = "same_numerically",
        /// Both have equal parts: of a tuple, a list, an interval, a matrix.
        SameParts = "same_parts",
        /// Both have the same value, and one leaves out what the other names: a unit, a sign of per cent, a variable before `=`.
        SameBare = "same_bare",
        /// Both name the same choice.
        SameChoice = "same_choice",
        /// One is a decimal of 15 digits or more, as computers print them, and the other rounds to it.
        SameRounded = "same_rounded",
        /// The gold answer is a rounded decimal, and the prediction rounds to it.
        RoundsToGold = "rounds_to_gold",
        /// Their values differ.
        OtherValue = "other_value",
        /// Their parts differ, or one has more of them.
        OtherParts = "other_parts",
        /// Their values are equal, their units or variables are not.
        OtherUnit = "other_unit",
        /// They are of different kinds, such as an interval and a number.
        OtherKind = "other_kind",
        /// Their words differ.
        OtherText = "other_text",
        /// They name different choices.
        OtherChoice = "other_choice",
        /// The response holds no answer.
        NoAnswer = "no_answer",
        /// The gold answer cannot be read.
        UnreadableGold = "unreadable_gold",
        /// The predicted answer cannot be read.
        UnreadablePrediction = "unreadable_prediction",
        /// To compare them would take more work than an answer is given.
        TooMuchWork = "too_much_work",
        /// They hold something that has no value here, such as an unknown function or a division by zero.
        NotComparable = "not_comparable",
    }
}

vocabulary! {
    /// Where the answer of a response is looked for. Each goes on from the one before it where that finds nothing.
    Extraction {
        /// In the last balanced box.
        Box = "box",
        /// Also behind "the answer is" and its like.
        Phrase = "phrase",
        /// Also in the last formula or the last number.
        Last = "last",
    }
}

vocabulary! {
    /// Who says what the true answer of a question is.
    TruthSource {
        /// The exact evaluator of the domain.
        Exact = "exact",
        /// A judge model.
        Judge = "judge",
        /// People, in a column that they fill.
        Human = "human",
    }
}

vocabulary! {
    /// What the Verifier writes of an answer.
    VerdictForm {
        /// A score: it is shown the answer, and writes a number.
        Score = "score",
        /// A score of one of two answers over the other: it is shown both, in either order as often. The other's is what is missing to 1.
        Comparison = "comparison",
        /// An answer of its own: it is shown the question alone, and its verdict is 1 where it comes to the same. One such answer judges
        /// all answers to the question.
        Derivation = "derivation",
    }
}

vocabulary! {
    /// What a verdict earns by its distance from the target.
    ScoringRule {
        /// `1 - (s - t)^2`: most where the score is the probability of the target. While nothing can be told, its best reply is the mean of the targets.
        Quadratic = "quadratic",
        /// `1 - |s - t|`: most at the nearer end. While nothing can be told, every score earns the same, so that none is fallen back to.
        Linear = "linear",
    }
}

vocabulary! {
    /// Why the filter dropped a candidate question. The order is the order in which the gates are asked.
    DropReason {
        /// The Challenger's completion is not a well-formed question; `challenge_status` says how.
        Malformed = "malformed",
        /// The same question stands earlier in the batch.
        Duplicate = "duplicate",
        /// No answer could be parsed, so there is no label.
        NoLabel = "no_label",
        /// The Solvers that answered, or the Verifier, do not agree on the label.
        Disagreement = "disagreement",
        /// Vote share under the band: too hard, or invalid.
        TooHard = "too_hard",
        /// Vote share above the band: too easy.
        TooEasy = "too_easy",
        /// The majority leads the runner-up by less than the gate asks.
        NarrowMargin = "narrow_margin",
    }
}

vocabulary! {
    /// How an evaluation completion was produced.
    EvalMode {
        /// The most probable token at each position.
        Greedy = "greedy",
        /// Sampled at temperature 1.
        Sampled = "sampled",
    }
}

vocabulary! {
    /// Which way of working an evaluation asks for.
    EvalStyle {
        /// The prompt as it is: the model chooses.
        Free = "free",
        /// The prompt followed by the profile's `worked_prefix`, so that the model must work in steps.
        Worked = "worked",
    }
}

vocabulary! {
    /// The Challenger's reward formula.
    RewardVariant {
        /// `max(0, 1 - 2|p - 1/2| - repetition)`, the paper's.
        Paper = "paper",
        /// `min(p, 1 - p) - repetition`, or `-1 - repetition` for a malformed question: the released code's.
        Released = "released",
        /// The paper's form with the mean verdict of the Verifier on the answers in place of the vote share p.
        Verdicts = "verdicts",
    }
}

vocabulary! {
    /// How per-token losses of an update batch are averaged.
    LossNormalization {
        /// Sum over all completion tokens divided by their number in the whole update batch.
        Token = "token",
        /// Mean over the tokens of each sequence, then mean over sequences.
        SequenceMean = "sequence-mean",
        /// Sum over tokens divided by (sequences x the length limit): Dr. GRPO.
        DrGrpo = "dr-grpo",
    }
}

vocabulary! {
    /// What counts as a token for BLEU.
    BleuTokens {
        /// Words between Unicode white space, as NLTK's callers do with `str.split()`.
        Whitespace = "whitespace",
        /// Single characters: for questions without white space, such as arithmetic expressions.
        Characters = "characters",
    }
}

vocabulary! {
    /// How the numbers of a model are stored.
    FloatType {
        /// 32 bits.
        F32 = "f32",
        /// 16 bits, eight of them exponent: the range of f32 at a precision of three digits.
        Bf16 = "bf16",
        /// 16 bits, five of them exponent.
        F16 = "f16",
    }
}

vocabulary! {
    /// How the engine holds the weights that it samples with; sums are 32-bit in any case.
    WeightFormat {
        /// As they are.
        F32 = "f32",
        /// Rounded to 16 bits, eight of them exponent.
        Bf16 = "bf16",
        /// 8-bit codes with a scale for every output and 64 inputs.
        Q8 = "q8",
    }
}

impl FloatType {
    /// As config.json calls it.
    #[must_use]
    pub const fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }
}

vocabulary! {
    /// A matrix of every layer that adapters can be trained for, by its Hugging Face name.
    LoraTarget {
        /// Queries.
        Query = "q_proj",
        /// Keys.
        Key = "k_proj",
        /// Values.
        Value = "v_proj",
        /// Output of attention.
        Output = "o_proj",
        /// Gate of the feed-forward.
        Gate = "gate_proj",
        /// Its other input.
        Up = "up_proj",
        /// Its output.
        Down = "down_proj",
    }
}

vocabulary! {
    /// Which checkpoint a role starts an iteration from.
    StartFrom {
        /// The role's own checkpoint of the previous iteration.
        Previous = "previous",
        /// The base model.
        Base = "base",
        /// The newest Solver.
        Solver = "solver",
    }
}

mod choices;

pub use choices::*;
