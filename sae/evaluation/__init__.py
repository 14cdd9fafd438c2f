"""An SAE and a store -> what is reported of it."""
