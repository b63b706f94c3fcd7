//! A guard for a transition that runs code between its two halves and may fail or panic there.

/// Undoes the first half on drop, unless [`Undo::done`] was called.
pub(super) struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    pub fn new(undo: F) -> Self {
        Undo(Some(undo))
    }

    /// The second half follows: disarms the guard.
    pub fn done(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}
