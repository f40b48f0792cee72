//! `publish-dataset`, `explain` and `look` on a run of the smoke profile. What other readers make of a dataset, `just test-readers` tells.

use crate::audit::whole;
use rzero_io::reader::read_table;
use rzero_schema::tables::{CurriculumRow, Label, RewardRow};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What a binary prints, with its exit code.
fn told(binary: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env_remove("RZERO_RUN")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn publish(run: &Path, folder: &Path) -> (Option<i32>, String, String) {
    told(env!("CARGO_BIN_EXE_publish-dataset"), &[run.to_str().unwrap(), folder.to_str().unwrap(), "--license", "cc-by-4.0"])
}

#[test]
fn a_dataset_holds_the_parts_of_the_run_and_says_where_they_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = folder.path().join("new/dataset");
    let run = whole(7, 2);
    assert_eq!(publish(run, &dataset).0, Some(0));
    let read = || serde_json::from_slice::<Value>(&std::fs::read(dataset.join("provenance.json")).unwrap()).unwrap();
    let provenance = read();
    let files = provenance["files"].as_object().unwrap();
    assert_eq!(files.len(), 1 + 2 * 2 + 2 * 2, "{files:?}");
    for (name, origin) in files {
        let part = run.join(origin["path"].as_str().unwrap());
        assert!(std::fs::read(dataset.join(name)).unwrap() == std::fs::read(part).unwrap(), "{name}");
        assert!(run.join(origin["manifest"].as_str().unwrap()).is_file(), "{name}");
    }
    let card = std::fs::read_to_string(dataset.join("README.md")).unwrap();
    for words in ["license: cc-by-4.0", "config_name: eval_results", "split: iteration_1_solver", "list: uint32", "% true"] {
        assert!(card.contains(words) || (words == "% true" && card.contains("are true")), "{words} is not in: {card}");
    }

    // Made again it is the same; what another process left half-way is taken up.
    assert_eq!(publish(run, &dataset).0, Some(0));
    assert_eq!((read(), std::fs::read_to_string(dataset.join("README.md")).unwrap()), (provenance.clone(), card));
    std::fs::remove_file(dataset.join("README.md")).unwrap();
    assert_eq!(publish(run, &dataset).0, Some(0));

    for (other, words) in [(whole(8, 2), "another run"), (Path::new("/nowhere"), "holds no run")] {
        let (code, _, text) = publish(other, &dataset);
        assert!(code != Some(0) && text.contains(words), "{code:?} {text}");
    }
    assert_eq!(read(), provenance);
    let (code, _, text) = publish(run, folder.path());
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("something else"), "{text}");
}

#[test]
fn the_life_of_a_question_is_that_of_its_tables() {
    let run = whole(7, 2);
    let explain =
        |arguments: &[&str]| told(env!("CARGO_BIN_EXE_explain"), &[&["--run", run.to_str().unwrap()], arguments].concat());
    let life = |id: &str| serde_json::from_str::<Value>(&explain(&[id, "--json"]).1).unwrap();
    let labels: Vec<Label> = [0, 1]
        .iter()
        .flat_map(|shard| {
            read_table::<Label>(&run.join(format!("iter-001/curriculum/vote-label/labels-0000{shard}-of-00002.parquet"))).unwrap()
        })
        .collect();
    let kept = read_table::<CurriculumRow>(&run.join("iter-001/curriculum/filter/curriculum-00000-of-00001.parquet")).unwrap();
    let rewards = |step| {
        read_table::<RewardRow>(&run.join(format!("iter-001/solver/step-0{step}/grpo-step/rewards-00000-of-00001.parquet")))
            .unwrap()
    };
    for label in labels.iter().step_by(5) {
        let life = life(&label.challenge_id);
        assert_eq!(life["label"]["pseudo_label"].as_str(), label.pseudo_label.as_deref());
        assert_eq!(life["question"], label.question);
        let answers = life["answers"].as_array().unwrap();
        assert_eq!(answers.len(), label.num_samples as usize);
        let agreeing = answers.iter().filter(|answer| answer["answer"].as_str() == label.pseudo_label.as_deref()).count();
        assert_eq!(agreeing as f64 / f64::from(label.num_samples), label.vote_share);
        assert_eq!(life["gate"]["is_kept"], kept.iter().any(|row| row.challenge_id == label.challenge_id));
        // The base model and the Solver after the iteration.
        assert_eq!(life["later_answers"].as_array().unwrap().len(), 2);
        for step in life["trained_in"].as_array().unwrap() {
            let of_step = rewards(step["step"].as_u64().unwrap());
            let num = of_step.iter().filter(|row| row.challenge_id == label.challenge_id).count();
            assert_eq!(step["rollouts"].as_array().unwrap().len(), num);
        }
    }
    let trained = rewards(1)[0].challenge_id.clone();
    assert_eq!(life(&trained)["trained_in"][0]["step"], 1);
    assert_eq!(life("1/challenger/1/2")["challenge_id"], "001/challenger/01/00002");
    assert!(life("001/challenger/01/00002")["challenger_reward"]["reward"].is_f64());

    let (code, text, _) = explain(&["--random"]);
    assert_eq!(code, Some(0));
    for words in ["completion", "The vote", "kept", "each token the most likely one"] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    for (id, words) in
        [("001/curriculum", "several questions"), ("9/nowhere", "no question"), ("001/curriculum/00/99999", "no question")]
    {
        let (code, _, text) = explain(&[id]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_look_at_a_table_counts_its_rows_and_reads_its_tokens() {
    let run = whole(7, 2);
    let look = |arguments: &[&str]| told(env!("CARGO_BIN_EXE_look"), &[&["--run", run.to_str().unwrap()], arguments].concat());
    for table in rzero_schema::tables::all_tables() {
        let (code, text, errors) = look(&[table.name, "--json"]);
        // These stand in no run of this kind.
        if ["memory", "verdicts", "gradient_sums", "pretrain_metrics", "eval_items", "judgements"].contains(&table.name) {
            assert_eq!(code, Some(3), "{}: {text}{errors}", table.name);
            continue;
        }
        let seen: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}: {text}{errors}", table.name));
        let shown: Vec<&str> =
            seen["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(shown, table.columns.iter().map(|column| column.name).collect::<Vec<_>>());
        assert!(seen["num_rows"].as_u64().unwrap() > 0 && !seen["rows"].as_array().unwrap().is_empty(), "{}", table.name);
    }
    let seen: Value = serde_json::from_str(&look(&["rollouts", "--json", "--rows", "1"]).1).unwrap();
    let row = &seen["rows"][0];
    assert_eq!(row["completion_tokens"]["text"].as_str().unwrap().trim_end_matches("<eos>"), row["completion"]);
    let text = look(&["labels"]).1;
    for words in ["labels, version 3, named by challenge_id", "pseudo_label", "majority answer; null where", "row "] {
        assert!(text.contains(words), "`{words}` is not in: {text}");
    }
    let part = run.join("iter-001/curriculum/filter/curriculum-00000-of-00001.parquet");
    assert!(look(&[part.to_str().unwrap()]).1.starts_with("curriculum, version 1"));
    let (code, _, text) = look(&["nothing"]);
    assert!(code == Some(2) && text.contains("there is no table `nothing`"), "{text}");
}
