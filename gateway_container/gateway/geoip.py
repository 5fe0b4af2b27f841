"""In which country is an address? A MaxMind DB file that the operator supplies knows; none comes with the gateway."""

from functools import lru_cache
from pathlib import Path
from typing import Any

REMEMBERED = 16384


class Countries:
    """``Countries(path)("203.0.113.7")`` is an ISO 3166-1 code, None where the file does not say. Raises OSError."""

    def __init__(self, path: Path) -> None:
        import maxminddb  # only where it is asked for

        try:
            self._reader = maxminddb.open_database(path)
        except maxminddb.InvalidDatabaseError as error:
            raise OSError(f"GATEWAY_GEOIP_FILE {path} is not a MaxMind DB file: {error}.") from None
        self._look_up = lru_cache(REMEMBERED)(self._read)

    def __call__(self, client_ip: str) -> str | None:
        return self._look_up(client_ip)

    def _read(self, client_ip: str) -> str | None:
        try:
            found = self._reader.get(client_ip)
        except ValueError:  # not an address, or an IPv6 one where the file knows IPv4 only
            return None
        return _code(found, "country") or _code(found, "registered_country")


def _code(found: Any, name: str) -> str | None:
    place = found.get(name) if isinstance(found, dict) else None
    code = place.get("iso_code") if isinstance(place, dict) else None
    return code if isinstance(code, str) else None
