//! The members of one room on one shard.
use super::Entry;
use std::rc::Rc;

/// Members that get every delivery, and members that recover what they have missed.
pub struct Listed {
    live: Vec<Rc<Entry>>,
    recovering: Vec<Rc<Entry>>,
    /// The offset of the last message that came here.
    pub offset: u64,
}

/// A place in one of the two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Among those that get every delivery.
    Live(u32),
    /// Among those that recover.
    Recovering(u32),
}

impl Listed {
    /// No members, in a room whose last message has this offset.
    pub fn new(offset: u64) -> Listed {
        Listed { live: Vec::new(), recovering: Vec::new(), offset }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.recovering.is_empty()
    }

    /// Those that get every delivery.
    pub fn live(&self) -> &[Rc<Entry>] {
        &self.live
    }

    /// All members.
    pub fn all(&self) -> impl Iterator<Item = &Rc<Entry>> {
        self.live.iter().chain(&self.recovering)
    }

    /// Adds a member.
    pub fn push(&mut self, entry: &Rc<Entry>, recovers: bool) -> Place {
        let list = if recovers { &mut self.recovering } else { &mut self.live };
        let place = list.len() as u32;
        list.push(entry.clone());
        if recovers { Place::Recovering(place) } else { Place::Live(place) }
    }

    /// Takes a member out. The one that has its place from now on.
    pub fn remove(&mut self, place: Place) -> Option<Rc<Entry>> {
        let (list, place) = match place {
            Place::Live(place) => (&mut self.live, place as usize),
            Place::Recovering(place) => (&mut self.recovering, place as usize),
        };
        list.swap_remove(place);
        if list.capacity() > 4 * list.len().max(4) {
            list.shrink_to(2 * list.len());
        }
        list.get(place).cloned()
    }
}
