//! Threads that work on one thing together, many thousand times a second: fork and join without a system call.
//!
//! A token of a large model is a hundred and fifty short steps that depend on each other, each a fraction of a millisecond; a pool whose threads
//! sleep between them would cost more than it gives. Here one thread leads, and the others spin between steps (and yield when a step is long
//! in coming). Parts of a step are taken by whoever is free, so a member that the system has put aside delays nothing but the part it holds; one
//! that has not noticed a step takes no part in it. What a part computes must not depend on who computes it.
//!
//! Deliberately absent: nesting, results of parts, priorities. For work of milliseconds there is rayon.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Looks at the state before a waiting member lets others run: some tens of microseconds.
const SPINS: u32 = 20_000;

/// The state's lowest bit: the step may be joined.
const OPEN: u64 = 1;
/// A member at work on the step; their number lies above the lowest bit.
const MEMBER: u64 = 2;
/// The number of the step lies above the number of members.
const STEP: u64 = 1 << 16;

type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A step: what to do with each of so many parts.
#[derive(Clone, Copy)]
struct Step {
    work: *const Work<'static>,
    num_parts: usize,
}

struct Shared {
    state: AtomicU64,
    step: UnsafeCell<Option<Step>>,
    next: AtomicUsize,
    is_over: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[expect(unsafe_code, reason = "the cell with the step is guarded by `state`, which the compiler cannot see")]
// SAFETY: the leader writes `step` only while the step is closed and no member is counted in; members read it only between counting
// themselves in and out. The work is Sync.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            step: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// Takes parts until there are none left; a panic is kept for the leader, and leaves no parts to the others.
    fn take_parts(&self, member: usize, step: Step) {
        #[expect(unsafe_code, reason = "the lifetime of the work was erased to hand it to the members")]
        // SAFETY: `run` does not return before every member that was counted in is counted out, and so outlives this borrow.
        let work: &Work<'_> = unsafe { &*step.work };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let part = self.next.fetch_add(1, Ordering::Relaxed);
                if part >= step.num_parts {
                    return;
                }
                work(member, part);
            }
        }));
        if let Err(panic) = outcome {
            self.next.store(step.num_parts, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// What a member does until the team is dissolved.
    fn serve(&self, member: usize) {
        let (mut seen, mut spins) = (0, 0u32);
        while !self.is_over.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            let is_new = state & OPEN != 0 && state / STEP != seen;
            if !is_new || self.state.compare_exchange(state, state + MEMBER, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                wait(&mut spins);
                continue;
            }
            (seen, spins) = (state / STEP, 0);
            #[expect(unsafe_code, reason = "reads the cell that `state` guards")]
            // SAFETY: this member is counted in, so the leader does not write the cell.
            let step = unsafe { *self.step.get() };
            if let Some(step) = step {
                self.take_parts(member, step);
            }
            self.state.fetch_sub(MEMBER, Ordering::Release);
        }
    }
}

fn wait(spins: &mut u32) {
    if *spins < SPINS {
        *spins += 1;
        spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// Ends the members' service, also when the leader panics.
struct Dissolve<'a>(&'a Shared);

impl Drop for Dissolve<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// The leader's hold on its team.
pub struct Team<'a> {
    shared: &'a Shared,
    size: usize,
}

impl Team<'_> {
    /// Members, the leader among them.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Does `work(member, part)` for every part from 0 to `num_parts`, each once; returns when all are done.
    ///
    /// # Panics
    /// When a part does.
    pub fn run(&mut self, num_parts: usize, work: &Work<'_>) {
        if self.size == 1 || num_parts <= 1 {
            (0..num_parts).for_each(|part| work(0, part));
            return;
        }
        let shared = self.shared;
        let work: *const Work<'_> = work;
        #[expect(unsafe_code, reason = "erases the lifetime of the work and writes the cell that `state` guards")]
        // SAFETY: the two pointers differ in a lifetime only, and this function outlives every use (see `take_parts`). The step before
        // is closed and nobody is counted in, so nobody reads the cell.
        let step = unsafe {
            let step = Step { work: std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work), num_parts };
            *shared.step.get() = Some(step);
            step
        };
        shared.next.store(0, Ordering::Relaxed);
        let state = (shared.state.load(Ordering::Relaxed) / STEP + 1) * STEP;
        shared.state.store(state | OPEN, Ordering::Release);
        shared.take_parts(0, step);
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.state.load(Ordering::Acquire) != state {
            wait(&mut spins);
        }
        if let Some(panic) = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(panic);
        }
    }

    /// Does `work(member, part, items)` for every `length` items of a slice (the last part may be shorter).
    pub fn split<A: Send>(&mut self, items: &mut [A], length: usize, work: impl Fn(usize, usize, &mut [A]) + Sync) {
        let parts = Parts::new(items, length);
        #[expect(unsafe_code, reason = "parts of a slice are given to several threads")]
        // SAFETY: `run` hands out every part number once, and the slice is borrowed until it returns.
        self.run(parts.count(), &|member, part| work(member, part, unsafe { parts.get(part) }));
    }

    /// As [`Self::split`], with as many parts of a second slice.
    ///
    /// # Panics
    /// When the two have different numbers of parts.
    pub fn split_both<A: Send, B: Send>(
        &mut self,
        (first, first_length): (&mut [A], usize),
        (second, second_length): (&mut [B], usize),
        work: impl Fn(usize, usize, &mut [A], &mut [B]) + Sync,
    ) {
        let (first, second) = (Parts::new(first, first_length), Parts::new(second, second_length));
        assert_eq!(first.count(), second.count(), "both slices have the same number of parts");
        self.run(first.count(), &|member, part| {
            #[expect(unsafe_code, reason = "parts of two slices are given to several threads")]
            // SAFETY: as in `split`.
            let (first, second) = unsafe { (first.get(part), second.get(part)) };
            work(member, part, first, second);
        });
    }
}

/// A slice cut into parts that different threads may hold.
struct Parts<A> {
    start: *mut A,
    num_items: usize,
    length: usize,
}

#[expect(unsafe_code, reason = "a raw pointer is not Sync by itself")]
// SAFETY: parts do not overlap, and their items may be sent.
unsafe impl<A: Send> Sync for Parts<A> {}

impl<A> Parts<A> {
    fn new(items: &mut [A], length: usize) -> Self {
        Self { start: items.as_mut_ptr(), num_items: items.len(), length: length.max(1) }
    }

    fn count(&self) -> usize {
        self.num_items.div_ceil(self.length)
    }

    /// One part. It must be held by one thread only, and not longer than the slice that it is a part of.
    #[expect(unsafe_code, clippy::mut_from_ref, reason = "exclusive access is a promise of the caller")]
    unsafe fn get(&self, part: usize) -> &mut [A] {
        let first = part * self.length;
        assert!(first < self.num_items, "a part lies within its slice");
        let length = self.length.min(self.num_items - first);
        // SAFETY: within the slice, by the assertion; exclusive, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), length) }
    }
}

/// Gathers a team of so many threads, this one among them, for the time of `lead`.
pub fn with_team<R>(size: usize, lead: impl FnOnce(&mut Team<'_>) -> R) -> R {
    let size = size.max(1);
    let shared = Shared::new();
    std::thread::scope(|scope| {
        let _dissolve = Dissolve(&shared);
        for member in 1..size {
            let shared = &shared;
            scope.spawn(move || shared.serve(member));
        }
        lead(&mut Team { shared: &shared, size })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_done_once_by_teams_of_any_size() {
        for size in [1, 2, 3, 8] {
            with_team(size, |team| {
                for count in [0usize, 1, 2, 7, 100] {
                    let mut items = vec![0u32; count];
                    for _ in 0..200 {
                        team.split(&mut items, 3, |member, part, items| {
                            assert!(member < size);
                            items.iter_mut().for_each(|item| *item += 1 + part as u32);
                        });
                    }
                    let expected: Vec<u32> = (0..count as u32).map(|at| 200 * (1 + at / 3)).collect();
                    assert_eq!(items, expected);
                }
            });
        }
    }

    #[test]
    fn steps_follow_one_another() {
        with_team(3, |team| {
            let (mut first, mut second) = (vec![0u64; 64], vec![0u64; 64]);
            for round in 1..500u64 {
                team.split(&mut first, 1, |_, part, item| item[0] = round + part as u64);
                let first = &first;
                team.split_both((&mut second, 2), (&mut [(); 32], 1), |_, part, items, _| {
                    items.iter_mut().enumerate().for_each(|(at, item)| *item = first[63 - (2 * part + at)]);
                });
                assert!(second.iter().enumerate().all(|(at, item)| *item == round + 63 - at as u64));
            }
        });
    }

    #[test]
    fn a_panic_of_a_part_reaches_the_leader() {
        for bad in [0, 50, 99] {
            let outcome = catch_unwind(|| {
                with_team(2, |team| team.run(100, &|_, part| assert!(part != bad, "part {part} is bad")));
            });
            let message = outcome.expect_err("the part panicked");
            assert!(message.downcast_ref::<String>().is_some_and(|text| text.contains("is bad")));
        }
    }
}
