"""How much CO2 equivalent a kilowatt-hour of electricity stands for, by country and on the world's average."""

from __future__ import annotations

import difflib

SOURCE = "Ember, life-cycle emissions of the electricity generated in 2023"
WORLD = 481.0  # gCO2e a kWh

# ISO 3166 code -> country, gCO2e a kWh. Rounded: a grid differs by more from hour to hour than a year does from the next.
REGIONS: dict[str, tuple[str, float]] = {
    "AT": ("Austria", 111.0),
    "AU": ("Australia", 549.0),
    "BE": ("Belgium", 138.0),
    "BR": ("Brazil", 98.0),
    "CA": ("Canada", 170.0),
    "CH": ("Switzerland", 35.0),
    "CN": ("China", 582.0),
    "CZ": ("Czechia", 450.0),
    "DE": ("Germany", 381.0),
    "DK": ("Denmark", 152.0),
    "ES": ("Spain", 174.0),
    "FI": ("Finland", 79.0),
    "FR": ("France", 56.0),
    "GB": ("United Kingdom", 238.0),
    "IN": ("India", 713.0),
    "IT": ("Italy", 331.0),
    "JP": ("Japan", 485.0),
    "KR": ("South Korea", 431.0),
    "NL": ("Netherlands", 268.0),
    "NO": ("Norway", 30.0),
    "PL": ("Poland", 662.0),
    "SE": ("Sweden", 41.0),
    "US": ("United States", 369.0),
    "ZA": ("South Africa", 709.0),
}
OFTEN = {"uk": "GB", "england": "GB", "usa": "US", "america": "US", "korea": "KR", "holland": "NL"}  # not of ISO 3166


def unknown_region(word: str) -> str:
    """What to say of a region that is not in the table: the codes of the countries that may be meant, else all."""
    names = {country.lower(): code for code, (country, _) in REGIONS.items()} | OFTEN
    near = [names[name] for name in difflib.get_close_matches(word.strip().lower(), names, n=3, cutoff=0.6)]
    near += difflib.get_close_matches(word.strip().upper(), REGIONS, n=3, cutoff=0.6)
    codes = list(dict.fromkeys(near))
    own = "or give cost.intensity in gCO2e a kWh"
    if codes:
        meant = " or ".join(f'"{code}" ({REGIONS[code][0]})' for code in codes)
        return f"did you mean {meant}? {own}"
    return f"the table has {', '.join(REGIONS)}; {own}"


def intensity_of(region: str | None, asked: float | None) -> tuple[float, str]:
    """gCO2e a kWh, and where the figure comes from: as asked, else that of the region, else the world's."""
    if asked is not None:
        return asked, "as given in cost.intensity"
    if region is None:
        return WORLD, f"the world's average ({SOURCE}); cost.region or cost.intensity gives your own"
    country, grams = REGIONS[region]
    return grams, f"{country} ({SOURCE})"
