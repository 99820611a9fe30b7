use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tempfile::TempDir;

#[test]
fn a_file_that_changed_meanwhile_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, "by hand").unwrap();
    let stale = Expect::Text(digest("before"));
    for text in [Some("new"), None] {
        assert!(matches!(write(&path, &stale, text), Err(WriteError::Changed(name)) if name == "a.yaml"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "by hand");
    }
    assert!(matches!(write(&path, &Expect::Nothing, Some("new")), Err(WriteError::Changed(_))));
    fs::remove_file(&path).unwrap();
    for text in [Some("new"), None] {
        assert!(matches!(write(&path, &stale, text), Err(WriteError::Changed(_))), "it went meanwhile");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left beside it");
}

#[test]
fn files_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    write(&path, &Expect::Nothing, Some("one")).unwrap();
    write(&path, &Expect::Text(digest("one")), Some("two")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    write(&path, &Expect::Text(digest("two")), None).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn links_are_not_replaced_and_names_must_leave_room() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("target"), "x").unwrap();
    let path = dir.path().join("a.yaml");
    std::os::unix::fs::symlink("target", &path).unwrap();
    assert!(write(&path, &Expect::Text(digest("x")), Some("y")).unwrap_err().to_string().contains("it is a link"));
    let longest = dir.path().join("x".repeat(MOST_NAME));
    write(&longest, &Expect::Nothing, Some("one")).unwrap();
    write(&longest, &Expect::Text(digest("one")), Some("two")).unwrap();
    let longer = dir.path().join("x".repeat(MOST_NAME + 1));
    assert!(write(&longer, &Expect::Nothing, Some("one")).unwrap_err().to_string().contains("give it a shorter one"));
}

#[test]
fn what_is_beside_files_and_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        ".a.yaml.swp",
        ".longshore",
        ".a.longshore",
        ".a.yaml.0123.gone.longshore",
        ".a.yaml.0123456789ab.x.longshore",
        "a.part.longshore",
    ];
    names.iter().for_each(|n| fs::write(dir.path().join(n), "x").unwrap());
    recover(dir.path());
    assert!(names.iter().all(|n| dir.path().join(n).exists()));
}

/// A person's hand on the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hand {
    /// Written in its place.
    Writes(&'static str),
    /// Written beside, and renamed over it.
    Replaces(&'static str),
    Removes,
}

/// The disk, with people at work between the steps, until the daemon dies before the step `dies`.
struct Mortal {
    path: PathBuf,
    at: Cell<usize>,
    dies: usize,
    hands: RefCell<Vec<(usize, Hand)>>,
}

/// What a step of a dead daemon panics with.
struct Dead;

impl Mortal {
    fn step(&self) {
        let at = self.at.get();
        let now = |(when, _): &(usize, Hand)| *when == at;
        let hands: Vec<Hand> = self.hands.borrow().iter().filter(|h| now(h)).map(|(_, h)| *h).collect();
        hands.iter().for_each(|h| self.hand(*h));
        if at == self.dies {
            std::panic::resume_unwind(Box::new(Dead));
        }
        self.at.set(at + 1);
    }

    fn hand(&self, hand: Hand) {
        match hand {
            Hand::Writes(text) => fs::write(&self.path, text).unwrap(),
            Hand::Replaces(text) => {
                let draft = self.path.with_file_name("draft~");
                fs::write(&draft, text).unwrap();
                fs::rename(&draft, &self.path).unwrap();
            }
            Hand::Removes => {
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}

impl Steps for Mortal {
    /// Empty, half, whole and durable: each may be the last that happens.
    fn create(&self, path: &Path, text: &str, mode: u32) -> io::Result<()> {
        self.step();
        let mut f = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        let (one, two) = text.split_at(text.len() / 2);
        for half in [one, two] {
            self.step();
            f.write_all(half.as_bytes())?;
        }
        self.step();
        f.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path, flags: libc::c_uint) -> io::Result<()> {
        self.step();
        Disk.rename(from, to, flags)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step();
        Disk.remove(path)
    }

    fn sync(&self, directory: &Path) -> io::Result<()> {
        self.step();
        Disk.sync(directory)
    }
}

struct After {
    /// None: the daemon died before it could tell.
    told: Option<Result<(), WriteError>>,
    /// What the next daemon reads.
    text: Option<String>,
    steps: usize,
}

const NAME: &str = "a.yaml";

/// One write, and what the next daemon finds.
fn life(before: Option<&str>, new: Option<&str>, dies: usize, hands: Vec<(usize, Hand)>) -> After {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join(NAME);
    if let Some(text) = before {
        fs::write(&path, text).unwrap();
    }
    let expect = before.map_or(Expect::Nothing, |t| Expect::Text(digest(t)));
    let steps = Mortal { path: path.clone(), at: Cell::new(0), dies, hands: RefCell::new(hands) };
    let told = catch_unwind(AssertUnwindSafe(|| Write { steps: &steps, path: &path }.write(&expect, new)));
    let told = told.map_err(|why| assert!(why.is::<Dead>(), "it panicked")).ok();
    let visible = fs::read_to_string(&path).ok();
    let next = reads(&dir);
    if told.is_some() {
        assert_eq!(next, visible, "who lives leaves nothing to put in order");
    }
    After { told, text: next, steps: steps.at.get() }
}

fn reads(dir: &TempDir) -> Option<String> {
    recover(dir.path());
    let manifests = files::list(dir.path()).unwrap().files.into_keys().collect::<Vec<_>>();
    let text = files::text(&dir.path().join(NAME)).ok();
    assert_eq!(manifests, text.iter().map(|_| NAME.to_owned()).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), manifests.len(), "nothing is left beside it");
    recover(dir.path());
    assert_eq!(files::text(&dir.path().join(NAME)).ok(), text, "and again");
    text
}

const ENDLESS: usize = usize::MAX;
const KINDS: [(Option<&str>, Option<&str>); 3] = [(None, Some("new text")), (Some("old text"), Some("new text")), (Some("old text"), None)];

#[test]
fn a_crash_before_any_step_leaves_the_old_or_the_new() {
    for (before, new) in KINDS {
        let whole = life(before, new, ENDLESS, Vec::new());
        assert!(matches!(whole.told, Some(Ok(()))) && whole.text.as_deref() == new && whole.steps >= 3);
        let mut seen = Vec::new();
        for k in 0..whole.steps {
            let after = life(before, new, k, Vec::new());
            assert!(
                after.told.is_none() && (after.text.as_deref() == before || after.text.as_deref() == new),
                "{before:?} {new:?} step {k}"
            );
            seen.push(after.text);
        }
        assert!(seen.contains(&before.map(str::to_owned)) && seen.contains(&new.map(str::to_owned)), "{seen:?}");
    }
}

#[test]
fn a_hand_that_writes_at_any_step_is_not_lost_whether_the_daemon_dies_or_not() {
    for (before, new) in KINDS {
        let steps = life(before, new, ENDLESS, Vec::new()).steps;
        for hand in [Hand::Writes("by hand"), Hand::Replaces("by hand")] {
            for when in 0..=steps {
                for dies in (when..steps + 4).chain([ENDLESS]) {
                    let after = life(before, new, dies, vec![(when, hand)]);
                    // After the last step nobody is asked any more.
                    let reached = after.told.is_none() || when < after.steps;
                    if reached {
                        assert_eq!(
                            after.text.as_deref(),
                            Some("by hand"),
                            "{before:?} {new:?}: {hand:?} before step {when}, dead before {dies}"
                        );
                    }
                }
            }
        }
    }
}

fn a_hand() -> impl Strategy<Value = Hand> {
    prop_oneof![
        Just(Hand::Writes("one")),
        Just(Hand::Writes("two")),
        Just(Hand::Replaces("one")),
        Just(Hand::Replaces("two")),
        Just(Hand::Removes)
    ]
}

proptest! {
    /// Whatever several hands do: what is there at the end is the last that somebody wanted, or the daemon's own where
    /// it came after them. Half a text, or one that nobody wrote, never.
    #[test]
    fn what_is_there_was_written_whole_by_somebody(
        kind in 0..3_usize, dies in 0..16_usize, hands in proptest::collection::vec((0..14_usize, a_hand()), 0..4),
    ) {
        let (before, new) = KINDS[kind];
        let after = life(before, new, dies, hands.clone());
        let text = after.text.as_deref();
        let by_hand = |t: &str| hands.iter().any(|(_, h)| matches!(h, Hand::Writes(w) | Hand::Replaces(w) if *w == t));
        prop_assert!(text.is_none_or(|t| Some(t) == before || Some(t) == new || by_hand(t)), "{:?}", text);
        if matches!(after.told, Some(Ok(()))) && hands.is_empty() {
            prop_assert_eq!(text, new);
        }
    }
}
