use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::recording::Storage;

/// A disk of memory that can be full, and tears what does not fit.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

#[derive(Default)]
pub struct State {
    pub files: BTreeMap<u64, Vec<u8>>,
    pub room: Option<usize>,
    pub syncs: usize,
}

impl Storage for Memory {
    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        Ok(self.state().files.iter().map(|(number, bytes)| (*number, bytes.len() as u64)).collect())
    }

    fn head(&self, number: u64) -> io::Result<Vec<u8>> {
        Ok(self.state().files.get(&number).map_or_else(Vec::new, |bytes| bytes.iter().copied().take(72).collect()))
    }

    fn tail(&self, number: u64) -> io::Result<Vec<u8>> {
        Ok(self.state().files.get(&number).cloned().unwrap_or_default())
    }

    fn append(&mut self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fits = state.room.unwrap_or(usize::MAX).min(bytes.len());
        if let Some(room) = &mut state.room {
            *room -= fits;
        }
        state.files.entry(number).or_default().extend(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, number: u64, length: u64) -> io::Result<()> {
        self.state().files.entry(number).or_default().truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.state().syncs += 1;
        Ok(())
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.state().files.remove(&number);
        Ok(())
    }
}
