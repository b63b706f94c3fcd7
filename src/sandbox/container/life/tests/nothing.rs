//! A life cycle whose states own nothing, so that it can be cloned and compared.

use super::super::*;
use std::hash::{Hash, Hasher};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nothing;

impl Parts for Nothing {
    type Facts = ();
    type Wanted = ();
    type Gate = ();
    type Handle = ();
}

type Key<'a> = (&'a Init<Nothing>, &'a BTreeMap<String, (Exec<Nothing>, ())>, Freezer, bool);

impl Life<Nothing> {
    fn key(&self) -> Key<'_> {
        (&self.init, &self.execs, self.freezer, self.oom_suspected)
    }
}

impl Clone for Life<Nothing> {
    fn clone(&self) -> Self {
        let (init, execs, freezer, oom_suspected) = self.key();
        Life { init: init.clone(), facts: (), execs: execs.clone(), freezer, oom_suspected }
    }
}

impl PartialEq for Life<Nothing> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Life<Nothing> {}

impl Hash for Life<Nothing> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl std::fmt::Debug for Life<Nothing> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.key())
    }
}
