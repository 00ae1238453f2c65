"""How large a deployment has to be, from figures that were measured."""
