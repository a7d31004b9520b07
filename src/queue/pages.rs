//! Reads a family, or a range of it, page by page: so that no reader holds more of it than one page.

use bytes::Bytes;

use super::store::{Family, Store, StoreError};

/// Records of one read.
const PAGE: usize = 1_024;
/// Behind every key.
const END: [u8; 40] = [0xff; 40];

/// Shows each record, in order, until `show` has seen enough (`false`).
pub(super) fn each(
    store: &dyn Store,
    family: Family,
    show: impl FnMut(&[u8], &Bytes) -> bool,
) -> Result<(), StoreError> {
    each_from(store, family, &[], &END, show)
}

/// The same from `from` on to before `to`.
pub(super) fn each_from(
    store: &dyn Store,
    family: Family,
    from: &[u8],
    to: &[u8],
    mut show: impl FnMut(&[u8], &Bytes) -> bool,
) -> Result<(), StoreError> {
    let mut from = from.to_vec();
    loop {
        let page = store.scan(family, &from, to, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        if !page.iter().all(|(key, value)| show(key, value)) {
            return Ok(());
        }
    }
}
