//! What an enqueue, or a schedule, sets for each of its messages, which may have options of their own.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    message::{MessageOptions, NewMessage},
    queue::KeyOfJson,
};

/// Sets what an enqueue asks for on each of its messages, unless the message has its own, and checks it.
pub(crate) fn set_options(
    messages: &mut [NewMessage],
    of_each: &MessageOptions,
    key_of: Option<&KeyOfJson>,
) -> Result<()> {
    let asks_for_none = *of_each == MessageOptions::default() && key_of.is_none();
    if asks_for_none && messages.iter().all(|message| message.options().is_none()) {
        return Ok(());
    }
    for (index, message) in messages.iter_mut().enumerate() {
        let has_key = of_each.key.is_some() || message.key().is_some();
        if has_key && key_of.is_some_and(KeyOfJson::is_group) {
            return Err(Error::InvalidKey {
                index,
                problem: "is set, and its queue computes the group of each message; send it without a key or group",
            });
        }
        if let Some(key_of) = key_of
            && !has_key
        {
            let key = key_of.key(message.payload());
            let key = key.map_err(|error| Error::Unkeyed {
                index,
                source: Arc::new(error),
            })?;
            message.set_key(key);
        }
        message.complete_options(index, of_each)?;
    }
    Ok(())
}

/// Returns the messages, unless one of them is larger than this.
pub(super) fn check_sizes(messages: Vec<NewMessage>, limit: usize) -> Result<Vec<NewMessage>> {
    for (index, message) in messages.iter().enumerate() {
        message.check_size(index, limit)?;
    }
    Ok(messages)
}
