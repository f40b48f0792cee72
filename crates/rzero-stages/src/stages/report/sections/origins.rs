//! What made the runs: machine, build, and how to make them again.

use crate::stages::report::collect::RunReport;
use crate::stages::report::page::{Group, Section, Table, shown};

/// What is said of a run.
type Fact<'a> = (&'static str, &'a dyn Fn(&RunReport) -> String);

pub(in crate::stages::report) fn section(runs: &[RunReport]) -> Section {
    let join = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    let facts: [Fact<'_>; 12] = [
        ("run directory", &|run| run.summary.run.display().to_string()),
        ("profile", &|run| run.summary.record.profile_name.clone()),
        ("overrides that were typed", &|run| join(&mut run.summary.overrides.iter().cloned())),
        ("digest of the profile", &|run| run.summary.record.profile_digest.clone()),
        ("base model", &|run| run.summary.record.profile.model.path.clone()),
        ("version", &|run| join(&mut run.origin.versions.iter().cloned())),
        ("commit", &|run| join(&mut run.origin.commits.iter().cloned())),
        ("device", &|run| join(&mut run.origin.devices.iter().cloned())),
        ("threads", &|run| join(&mut run.origin.threads.iter().map(u32::to_string))),
        ("first start", &|run| run.origin.first_start.clone()),
        ("last end", &|run| run.origin.last_end.clone()),
        ("processes and megabytes written", &|run| {
            format!("{} and {:.1}", run.origin.num_processes, run.origin.num_bytes as f64 / 1e6)
        }),
    ];
    let header: Vec<&str> = std::iter::once("what").chain(runs.iter().map(|run| run.name.as_str())).collect();
    let row =
        |(name, fact): &Fact<'_>| std::iter::once((*name).to_owned()).chain(runs.iter().map(|run| shown(&fact(run)))).collect();
    let table = Table::new("Where each run comes from", &header, facts.iter().map(row));
    Section {
        id: "origins",
        title: "Machine and build",
        lead: "From the manifests of the run.".to_owned(),
        groups: vec![Group { tables: vec![table], ..Group::default() }],
    }
}
