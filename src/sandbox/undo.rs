//! A transition that runs code between its two halves, and may end there: by an error, or by a panic.

/// Undoes the first half when it is dropped, unless the second one has come.
pub(super) struct Undo<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Undo<F> {
    pub fn new(undo: F) -> Self {
        Undo(Some(undo))
    }

    /// The second half is made now.
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
