#!/bin/sh
# openpyxl 3.1.5 beside python-calamine 0.9.1 and XlsxWriter 3.3.1: a cell's text changes between
# libraries where it has a carriage return, or looks like an escape of one.
#
# Guess: a text that one library writes into a cell is the text that another one reads.
#
# Observed: .xlsx writes a character that XML cannot hold as _x000D_, and the underscore of a text
# that would be read so as _x005F_. XlsxWriter writes both and calamine reads both. openpyxl writes
# neither, and reads only the second: a carriage return arrives as the text "_x000D_", and an
# identifier such as user_x0041_7 that openpyxl has written is userA7 to calamine. Written and read
# by openpyxl alone it is kept, so a test of one library shows nothing.
#
# Why it matters: the word "_x000D_" enters an index with every line that ends in a carriage return,
# and an identifier looked up in what another reader has indexed is not found.
#
#     XlsxWriter, openpyxl: 'one_x000D_\ntwo' 'user_x0041_7'
#     XlsxWriter, calamine: 'one\r\ntwo' 'user_x0041_7'
#     openpyxl, openpyxl: 'one\ntwo' 'user_x0041_7'
#     openpyxl, calamine: 'one\ntwo' 'userA7'
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    openpyxl==3.1.5 python-calamine==0.9.1 XlsxWriter==3.3.1
cat > "$folder/run.py" <<'PYTHON'
import sys

import openpyxl
import python_calamine
import xlsxwriter

PATH = sys.argv[1] + "/book.xlsx"
TEXTS = ["one\r\ntwo", "user_x0041_7"]


def write_by_xlsxwriter():
    with xlsxwriter.Workbook(PATH) as book:
        book.add_worksheet().write_row(0, 0, TEXTS)


def write_by_openpyxl():
    book = openpyxl.Workbook()
    book.active.append(TEXTS)
    book.save(PATH)


def read_by_openpyxl():
    return next(openpyxl.load_workbook(PATH).active.iter_rows(values_only=True))


def read_by_calamine():
    return python_calamine.CalamineWorkbook.from_path(PATH).get_sheet_by_index(0).to_python()[0]


for writer, write in (("XlsxWriter", write_by_xlsxwriter), ("openpyxl", write_by_openpyxl)):
    write()
    for reader, read in (("openpyxl", read_by_openpyxl), ("calamine", read_by_calamine)):
        print(f"{writer}, {reader}:", *map(repr, read()))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" > "$folder/seen"
cat "$folder/seen"
cat > "$folder/expected" <<'TEXT'
XlsxWriter, openpyxl: 'one_x000D_\ntwo' 'user_x0041_7'
XlsxWriter, calamine: 'one\r\ntwo' 'user_x0041_7'
openpyxl, openpyxl: 'one\ntwo' 'user_x0041_7'
openpyxl, calamine: 'one\ntwo' 'userA7'
TEXT
cmp "$folder/seen" "$folder/expected"
