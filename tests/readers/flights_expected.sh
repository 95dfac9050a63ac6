#!/bin/sh
# What must come out of the flights, by the oldest tools: `sort | uniq -c` over columns of the text.
#   flights_expected.sh FLIGHTS.tsv      the same text as flights_expected.py
set -eu
export LC_ALL=C
source=$1

count() {
    sort | uniq -c | awk -v what="$1" '{ n = $1; sub(/^ *[0-9]+ /, ""); print what "\t" $0 "\t" n }'
}

{
    cut -f1 "$source" | cut -c1-13 | count hour
    cut -f3 "$source" | count carrier
    cut -f1,3 "$source" | awk -F '\t' '{ print substr($1, 1, 13) " " $2 }' | count both
} | sort
