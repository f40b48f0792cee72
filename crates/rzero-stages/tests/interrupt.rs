//! A signal stops a stage with exit code 75 and leaves nothing behind. Alone in its file, for a signal reaches the whole process.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_schema::tables::Challenge;
use rzero_schema::vocab::Stage;
use rzero_stages::context::StageContext;
use rzero_stages::exit::{StageExit, exit_of, hints};
use rzero_stages::frame::run_stage;
use rzero_stages::inputs::StageInputs;
use support::{CURRICULUM, Run};

#[test]
fn a_signal_leaves_nothing_and_the_next_run_completes() {
    let run = Run::new();
    let context = StageContext::new(Stage::ChallengeGen, &run.args(CURRICULUM, 0, 1), &[CURRICULUM.phase]).unwrap();
    let error = run_stage(&context, StageInputs::new(&context), |_, outputs| {
        let mut writer = outputs.table_writer::<Challenge>()?;
        writer.write(&[])?;
        signal_hook::low_level::raise(signal_hook::consts::SIGUSR1)?;
        context.interrupt.check()?;
        outputs.finish_table(writer)
    })
    .unwrap_err();
    assert_eq!(exit_of(&error), StageExit::Interrupted);
    assert_eq!(hints(&error), ["run the same command again"]);
    let folder = run.layout.stage_folder(Stage::ChallengeGen, CURRICULUM);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);

    run.play(CURRICULUM, &[(Some("1+1"), vec!["2"; 4])]);
    assert_eq!(run.open(Stage::ChallengeGen, CURRICULUM).num_rows::<Challenge>().unwrap(), 1);
}
