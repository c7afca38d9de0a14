"""Messages <-> the dataclasses of `teleworld.world.work`, one module a service, `common` for what they share.

`write_x` makes the message of an object, `read_x` checks a message and makes the object. A reader raises InvalidInput with
the path of the field in the message, so that bad input never reaches a model. What only a model can know (channels,
picture size) is checked by the model.
"""
