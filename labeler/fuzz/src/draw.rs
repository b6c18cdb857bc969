//! Choices made of a fuzzer's octets, so that what needs structure (a signed token, a tree) can be made of any input.

/// What is left of the input. When nothing is, every choice is the first.
pub(crate) struct Draw<'a>(pub(crate) &'a [u8]);

impl<'a> Draw<'a> {
    pub(crate) fn octet(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Below `n`, which is at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.octet()) % n
    }

    pub(crate) fn is(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Some octets, as many as the first of them says.
    pub(crate) fn octets(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (octets, rest) = self.0.split_at(length);
        self.0 = rest;
        octets
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.octets()).into_owned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
