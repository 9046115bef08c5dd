//! Bans in memory, in order.
use super::Ban;
use crate::config::Namespace;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// What a ban is found by; `room` empty: the gateway.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub namespace: Namespace,
    pub client: &'a str,
    pub room: &'a str,
}

/// The bans of one client by room, that from the gateway first, under the empty name.
type OfClient = BTreeMap<Arc<str>, Ban>;

#[derive(Default)]
pub(super) struct Table {
    namespaces: HashMap<Namespace, BTreeMap<Arc<str>, OfClient>>,
    len: usize,
}

impl Table {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, place: Place<'_>) -> Option<&Ban> {
        self.namespaces.get(&place.namespace)?.get(place.client)?.get(place.room)
    }

    /// In place of an older one.
    pub fn put(&mut self, ban: Ban) {
        let room = ban.room.clone().unwrap_or_default();
        let clients = self.namespaces.entry(ban.namespace).or_default();
        let older = clients.entry(Arc::clone(&ban.client)).or_default().insert(room, ban);
        self.len += usize::from(older.is_none());
    }

    pub fn remove(&mut self, place: Place<'_>) -> Option<Ban> {
        let clients = self.namespaces.get_mut(&place.namespace)?;
        let of_client = clients.get_mut(place.client)?;
        let removed = of_client.remove(place.room)?;
        if of_client.is_empty() {
            clients.remove(place.client);
        }
        self.len -= 1;
        Some(removed)
    }

    pub fn all(&self) -> impl Iterator<Item = &Ban> {
        self.namespaces.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }

    /// Those of a namespace, in order, after a client and room.
    pub fn after<'a>(
        &'a self,
        namespace: Namespace,
        after: Option<(&'a str, Option<&'a str>)>,
    ) -> impl Iterator<Item = &'a Ban> {
        let start = after.map_or(Bound::Unbounded, |(client, _)| Bound::Included(client));
        let clients = self.namespaces.get(&namespace).into_iter();
        let of_clients = clients.flat_map(move |c| c.range::<str, _>((start, Bound::Unbounded)));
        of_clients.flat_map(move |(client, rooms)| {
            let start = match after {
                Some((reached, room)) if *reached == **client => Bound::Excluded(room.unwrap_or("")),
                _ => Bound::Unbounded,
            };
            rooms.range::<str, _>((start, Bound::Unbounded)).map(|(_, ban)| ban)
        })
    }
}
