"""What the description can't say: how the parameters of one query go together."""

import schemathesis


@schemathesis.hook
def filter_query(context, query):
    if not isinstance(query, dict):
        return True
    cursor = query.get("cursor")
    of_purged = query.get("state") == "purged"
    if of_purged and set(query) - {"state", "limit", "cursor"}:
        # Of purged events only the id is known.
        return False
    # A page goes on with the cursor of its own kind.
    return not isinstance(cursor, str) or cursor.isdigit() != of_purged
