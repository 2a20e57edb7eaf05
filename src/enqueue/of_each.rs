//! What an enqueue, or a schedule, sets for each of its messages, which may have options of their own.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    key::{Key, Lifetime},
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
        if let Some(key_of) = key_of
            && of_each.key.is_none()
            && message.key().is_none()
        {
            let key = key_of.key(message.payload());
            let key = key.map_err(|error| Error::Unkeyed {
                index,
                source: Arc::new(error),
            })?;
            message.set_key(Key::new(key, Lifetime::Unfinished));
        }
        message.complete_options(index, of_each)?;
    }
    Ok(())
}
