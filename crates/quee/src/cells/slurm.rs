//! Cells as an array of Slurm jobs: one batch script, made from a template, in which every task runs one cell.
//!
//! `slurm.json` in the sweep's folder holds the template, what was asked for, and the jobs that were submitted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::folder::SweepFolder;
use super::state::{State, now};
use super::status::Heard;
use crate::cache_command::Size;

/// The template where the user gives none.
pub const TEMPLATE: &str = include_str!("slurm.sh");
const FILE: &str = "slurm.json";
/// Folder of batch scripts and of what their tasks print.
const FOLDER: &str = "slurm";

/// What each task asks for.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlurmArgs {
    /// Slurm: partition
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Slurm: most time of a cell, e.g. 30 (minutes), 2:00:00, 1-0
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Slurm: GPUs of a cell, e.g. 1, a100:1
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,
    /// Slurm: processors of a cell, which are its threads where the recipe leaves them open [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Slurm: template of the batch script; see docs/sweeps.md
    #[arg(long, value_name = "FILE")]
    slurm_template: Option<PathBuf>,
}

impl SlurmArgs {
    /// The first option that is given.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            (self.partition.is_some(), "--partition"),
            (self.time.is_some(), "--time"),
            (self.gpus.is_some(), "--gpus"),
            (self.cpus.is_some(), "--cpus"),
            (self.slurm_template.is_some(), "--slurm-template"),
        ];
        options.into_iter().find_map(|(given, name)| given.then_some(name))
    }
}

/// The content of `slurm.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slurm {
    template: String,
    asked: SlurmArgs,
    /// Bytes of memory of each cell.
    memory: Option<u64>,
    /// Most cells at a time.
    at_once: Option<usize>,
    jobs: Vec<Job>,
}

/// A submitted array.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    id: String,
    /// Cells, by index.
    cells: Vec<usize>,
    submitted: String,
}

impl Slurm {
    /// What was submitted of a sweep; `None` when nothing was.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn of(sweep: &SweepFolder) -> Result<Option<Self>> {
        let file = sweep.root.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&file).with_context(|| format!("{}: cannot read", file.display()))?;
        let found = serde_json::from_slice(&text);
        Ok(Some(found.with_context(|| {
            format!("{}: damaged; hint: remove it when its jobs have ended, then submit again", file.display())
        })?))
    }

    /// Takes what the command line asks for; what it leaves open stays as it was.
    ///
    /// # Errors
    /// When the template cannot be read or lacks what it needs.
    pub fn ask(&mut self, args: &SlurmArgs, jobs: Option<usize>, memory: Option<Size>) -> Result<()> {
        let keep = |new: &Option<String>, old: &mut Option<String>| new.iter().for_each(|v| *old = Some(v.clone()));
        keep(&args.partition, &mut self.asked.partition);
        keep(&args.time, &mut self.asked.time);
        keep(&args.gpus, &mut self.asked.gpus);
        self.asked.cpus = args.cpus.or(self.asked.cpus);
        self.at_once = jobs.or(self.at_once);
        self.memory = memory.map(|size| size.0).or(self.memory);
        if let Some(file) = &args.slurm_template {
            let shown = file.display();
            self.template = std::fs::read_to_string(file)
                .with_context(|| format!("--slurm-template {shown}: cannot read; hint: see docs/sweeps.md"))?;
            self.asked.slurm_template = Some(file.clone());
        } else if self.template.is_empty() {
            TEMPLATE.clone_into(&mut self.template);
        }
        Ok(())
    }

    /// Submits `cells` and returns the number of the job.
    ///
    /// # Errors
    /// When the template is no template, or Slurm refuses or cannot be reached.
    pub fn submit(&mut self, sweep: &SweepFolder, cells: &[usize]) -> Result<String> {
        let folder = sweep.root.join(FOLDER);
        std::fs::create_dir_all(&folder).with_context(|| format!("{}: cannot create", folder.display()))?;
        let script = self.script(sweep, cells)?;
        let script = sweep.write(&format!("{FOLDER}/batch-{}.sh", self.jobs.len() + 1), script.as_bytes())?;
        // From here on a failure that is written down is one of this attempt.
        cells.iter().try_for_each(|&index| State::Waiting.write(&sweep.cell(index)))?;
        let output = call(Command::new("sbatch").arg("--parsable").arg(&script).current_dir(&sweep.directory))?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "sbatch has refused {}: {}; hint: a site may limit the size of arrays (MaxArraySize), partitions and time",
            script.display(),
            words(&output.stderr)
        );
        // `ID;CLUSTER` where there are several clusters.
        let id = said.lines().last().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
        ensure!(
            !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()),
            "sbatch has answered `{}` instead of the number of a job; hint: squeue shows whether there is one",
            said.trim()
        );
        self.jobs.push(Job { id: id.clone(), cells: cells.to_vec(), submitted: now() });
        sweep.write(FILE, &crate::results::json(self)?)?;
        Ok(id)
    }

    fn script(&self, sweep: &SweepFolder, cells: &[usize]) -> Result<String> {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let cpus = self.asked.cpus.unwrap_or(1);
        let task = format!(
            "{} sweep cell --threads {cpus} {} \"$SLURM_ARRAY_TASK_ID\"",
            quoted(&program.display().to_string()),
            quoted(&sweep.root.display().to_string())
        );
        let at_once = self.at_once.map_or(String::new(), |most| format!("%{most}"));
        // sbatch replaces %A by the number of the job.
        let output = sweep.root.join(FOLDER).display().to_string().replace('%', "%%") + "/%A_%a.txt";
        let memory = self.memory.map(|bytes| format!("{}M", bytes.div_ceil(1 << 20)));
        let values = BTreeMap::from([
            ("name", Some(format!("{}-sweep", sweep.recipe))),
            ("array", Some(ranges(cells) + &at_once)),
            ("directory", Some(sweep.directory.display().to_string())),
            ("output", Some(output)),
            ("partition", self.asked.partition.clone()),
            ("time", self.asked.time.clone()),
            ("gpus", self.asked.gpus.clone()),
            ("cpus", Some(cpus.to_string())),
            ("memory", memory),
            ("command", Some(task)),
        ]);
        let from = self.asked.slurm_template.as_ref().map_or_else(String::new, |file| format!("{}: ", file.display()));
        fill(&self.template, &values).map_err(|reason| anyhow::anyhow!("{from}{reason}; hint: see docs/sweeps.md"))
    }

    /// What Slurm says of every cell. `told` gets why it cannot be asked.
    pub fn heard(&self, sweep: &SweepFolder, told: &mut dyn FnMut(&str)) -> Vec<Heard> {
        let mut heard = vec![Heard::Nothing; sweep.cells.len()];
        // The last job of a cell counts.
        let all = self.jobs.iter().flat_map(|job| job.cells.iter().map(|&cell| (cell, job.id.as_str())));
        let last: BTreeMap<usize, &str> = all.filter(|(cell, _)| *cell < sweep.cells.len()).collect();
        let ids: Vec<&str> =
            self.jobs.iter().map(|job| job.id.as_str()).filter(|id| last.values().any(|l| l == id)).collect();
        let queue = match queue(&ids) {
            Ok(queue) => queue,
            Err(error) => {
                told(&format!("Slurm cannot be asked: {error:#}"));
                last.keys().for_each(|&cell| heard[cell] = Heard::Unknown);
                return heard;
            }
        };
        let ended = if queue.len() < last.len() { accounts(&ids) } else { BTreeMap::new() };
        for (&cell, &id) in &last {
            let task = (id.to_owned(), cell);
            heard[cell] = match queue.get(&task) {
                Some((state, why)) => of_state(state, why),
                None => Heard::Gone(ended.get(&task).cloned()),
            };
        }
        heard
    }
}

/// What the state of a task means for its cell.
fn of_state(state: &str, why: &str) -> Heard {
    match state {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
            Heard::Pending(format!("{} ({why})", state.to_lowercase()))
        }
        "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => Heard::Running,
        ended => Heard::Gone(Some(ended.to_owned())),
    }
}

type Tasks<T> = BTreeMap<(String, usize), T>;

/// State and reason of every task that Slurm still knows of, ended ones included.
fn queue(ids: &[&str]) -> Result<Tasks<(String, String)>> {
    let mut tasks = Tasks::new();
    // One at a time: squeue refuses a list with one unknown job, as which it treats those that ended some minutes ago.
    for id in ids {
        let mut command = Command::new("squeue");
        let output =
            call(command.args(["--noheader", "--array", "--states=all", "--format=%F|%K|%T|%r", "--jobs", id]))?;
        if !output.status.success() {
            let said = words(&output.stderr);
            if said.contains("Invalid job id") {
                continue;
            }
            bail!("squeue: {said}");
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let parts: Vec<&str> = line.trim().splitn(4, '|').collect();
            if let [id, cell, state, why] = parts[..]
                && let Ok(cell) = cell.parse()
            {
                tasks.insert((id.to_owned(), cell), (state.to_owned(), why.to_owned()));
            }
        }
    }
    Ok(tasks)
}

/// How tasks have ended, from Slurm's accounts, which not every site keeps.
fn accounts(ids: &[&str]) -> Tasks<String> {
    let mut command = Command::new("sacct");
    command.args(["--noheader", "--parsable2", "--allocations", "--array", "--format=JobID,State", "--jobs"]);
    let Ok(output) = call(command.arg(ids.join(","))) else { return Tasks::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let task = |line: &str| {
        let (task, state) = line.split_once('|')?;
        let (id, cell) = task.split_once('_')?;
        // `CANCELLED by 1000`
        Some(((id.to_owned(), cell.parse().ok()?), state.split(' ').next()?.to_owned()))
    };
    text.lines().filter_map(task).collect()
}

fn call(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| {
        let name = command.get_program().to_string_lossy().into_owned();
        format!("{name}: cannot be started; hint: Slurm's commands must be on the PATH (Debian: slurm-client)")
    })
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A template with `@name@` replaced. A line of options (`#SBATCH`) with a name that has no value is left out.
fn fill(template: &str, values: &BTreeMap<&str, Option<String>>) -> Result<String, String> {
    let known = || values.keys().map(|name| format!("@{name}@")).collect::<Vec<_>>().join(", ");
    for needed in ["@array@", "@command@"] {
        if !template.contains(needed) {
            return Err(format!("the template has no {needed}"));
        }
    }
    let mut text = String::new();
    'lines: for line in template.lines() {
        let mut rest = line;
        let mut filled = String::new();
        while let Some((before, after)) = rest.split_once('@') {
            filled += before;
            let end = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            if end == 0 || !after[end..].starts_with('@') {
                filled.push('@');
                rest = after;
                continue;
            }
            match values.get(&after[..end]) {
                None => return Err(format!("the template has @{}@, which is none of {}", &after[..end], known())),
                Some(Some(value)) => filled += value,
                Some(None) if line.trim_start().starts_with("#SBATCH") => continue 'lines,
                Some(None) => {}
            }
            rest = &after[end + 1..];
        }
        let _ = writeln!(text, "{filled}{rest}");
    }
    Ok(text)
}

/// `0,2-4`.
fn ranges(cells: &[usize]) -> String {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for &cell in cells {
        match spans.last_mut() {
            Some((_, end)) if *end + 1 == cell => *end = cell,
            _ => spans.push((cell, cell)),
        }
    }
    let span = |&(from, to): &(usize, usize)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    spans.iter().map(span).collect::<Vec<_>>().join(",")
}

/// A word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_cells_are_short() {
        assert_eq!(ranges(&[0, 1, 2, 3]), "0-3");
        assert_eq!(ranges(&[0, 2, 3, 4, 7]), "0,2-4,7");
    }

    #[test]
    fn a_template_is_filled_and_unused_options_are_left_out() {
        let values = BTreeMap::from([
            ("array", Some("0-3%2".to_owned())),
            ("command", Some("'/a b/quee' x".to_owned())),
            ("time", None),
        ]);
        let template = "#!/bin/sh\n#SBATCH --array=@array@\n#SBATCH --time=@time@\n#SBATCH --mail-user=a@b.c\nT=@time@ exec @command@\n";
        assert_eq!(
            fill(template, &values).unwrap(),
            "#!/bin/sh\n#SBATCH --array=0-3%2\n#SBATCH --mail-user=a@b.c\nT= exec '/a b/quee' x\n"
        );
        assert!(fill("@command@", &values).unwrap_err().contains("no @array@"));
        let error = fill("@array@ @command@ @partion@", &values).unwrap_err();
        assert!(error.contains("@partion@") && error.contains("@array@, @command@, @time@"), "{error}");
    }

    #[test]
    fn states_of_tasks_mean_what_they_say() {
        assert_eq!(of_state("PENDING", "Resources"), Heard::Pending("pending (Resources)".to_owned()));
        assert_eq!(of_state("COMPLETING", "None"), Heard::Running);
        assert_eq!(of_state("OUT_OF_MEMORY", "None"), Heard::Gone(Some("OUT_OF_MEMORY".to_owned())));
    }

    #[test]
    fn words_of_the_shell_stay_one_word() {
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
