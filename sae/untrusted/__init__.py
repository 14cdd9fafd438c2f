"""Files of others, opened as data: nothing in them runs, no size they tell is believed."""
