//! The event of a recipient who wants no more: SES's `Subscription`, as it writes it for a `List-Unsubscribe` header.

use super::Mail;
use super::outcome::{Extras, finish, start};
use crate::events::json::Object;
use crate::events::{EventKind, EventLine};
use crate::types::Timestamp;

/// `subscription.source`: the request came by what the message's header names, also where a person pressed a button there.
const SOURCE: &str = "UnsubscribeHeader";

/// `subscription`.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionInfo<'a> {
    /// When the request came.
    pub at: Timestamp,
    /// The configuration set: SES names its contact list here. Empty: the message had none.
    pub contact_list: &'a str,
}

/// The recipient that `extras` names wants no more of the contact list.
pub fn subscription(mail: Mail<'_>, info: &SubscriptionInfo<'_>, extras: &Extras<'_>) -> EventLine {
    let mut out = start(EventKind::Subscription, mail, None, 4 * info.contact_list.len());
    let mut object = Object::resume(&mut out);
    object.object("subscription", |object| {
        object.string("contactList", info.contact_list);
        object.plain("timestamp", info.at);
        object.string("source", SOURCE);
        object.object("newTopicPreferences", |object| preferences(object, info.contact_list, true));
        object.object("oldTopicPreferences", |object| preferences(object, info.contact_list, false));
    });
    finish(EventKind::Subscription, out, extras)
}

fn preferences(object: &mut Object<'_>, contact_list: &str, is_out: bool) {
    object.boolean("unsubscribeAll", is_out);
    object.objects("topicSubscriptionStatus", &[contact_list], |object, name| {
        object.string("topicName", name);
        object.string("subscriptionStatus", if is_out { "OptOut" } else { "OptIn" });
    });
}
