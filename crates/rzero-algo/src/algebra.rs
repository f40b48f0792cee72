//! Exact algebra for comparing answers: expressions and the ways to tell whether two of them are the same.
//!
//! | module | says | is |
//! | --- | --- | --- |
//! | [`expr`] | what an expression is | the tree that the parser builds |
//! | [`rational`], [`polynomial`], [`simplify`] | the canonical form, where there is one | sums of monomials over Q in variables, pi, e, i, roots and logarithms of primes |
//! | [`field`] | whether two rational functions are the same | exact values at fixed points of a prime field |
//! | [`ball`], [`numeric`] | the same of anything else that has real values | interval arithmetic, 53 bits and then 128 |
//!
//! Everything is bounded: by the size of an expression when it is parsed, and by a [`Budget`] when it is worked on.

pub(crate) mod ball;
pub(crate) mod expr;
pub(crate) mod field;
pub(crate) mod numeric;
pub(crate) mod polynomial;
pub(crate) mod print;
pub(crate) mod rational;
pub(crate) mod simplify;

/// Why an expression has no canonical form or no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoForm {
    /// It is outside of what this way of looking at it covers; another may do.
    Other,
    /// It has no value: a division by zero, a factorial of -1.
    Undefined,
    /// It would take more work than an answer is given.
    TooMuchWork,
}

/// How much work an answer may still take, in steps of some tens of nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(u32);

impl Budget {
    /// What one expression is given.
    pub(crate) const PER_EXPRESSION: u32 = 2_500;

    pub(crate) const fn new(steps: u32) -> Self {
        Self(steps)
    }

    /// Takes so many steps.
    pub(crate) fn spend(&mut self, steps: u64) -> Result<(), NoForm> {
        match u32::try_from(steps).ok().and_then(|steps| self.0.checked_sub(steps)) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(NoForm::TooMuchWork),
        }
    }
}
