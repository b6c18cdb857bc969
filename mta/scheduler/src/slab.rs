//! A table whose rows keep their number while they live; numbers are used again.

pub(crate) struct Slab<T> {
    rows: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { rows: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab::default()
    }

    pub(crate) fn insert(&mut self, row: T) -> u32 {
        if let Some(key) = self.free.pop() {
            self.rows[key as usize] = Some(row);
            return key;
        }
        if self.rows.len() == self.rows.capacity() {
            // By a quarter and not to twice of it: rows are large, and half of a table might never be used.
            self.rows.reserve_exact((self.rows.len() / 4).max(4));
        }
        self.rows.push(Some(row));
        (self.rows.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, key: u32) -> Option<T> {
        let row = self.rows.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(row)
    }

    pub(crate) fn get(&self, key: u32) -> Option<&T> {
        self.rows.get(key as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.rows.get_mut(key as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// No row has this number or a larger one.
    pub(crate) fn end(&self) -> u32 {
        self.rows.len() as u32
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.rows.iter().enumerate().filter_map(|(key, row)| Some((key as u32, row.as_ref()?)))
    }
}
