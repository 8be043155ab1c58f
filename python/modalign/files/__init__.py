"""Rows, tables and labels in files, and files that survive a kill.

    rows            open_rows and open_layers: rows of an array, a tensor or a file, read a block at a time
    contract        what a reader of a kind of file returns
    paths           ~ and $VARIABLES in paths, and files that hold something else than data
    arrays          readers of .npy, .npz and .safetensors
    torch_files     reader of .pt: tensors, and lists and dictionaries of them
    pickles         limits on what a pickle may ask for
    documents       JSON and YAML within limits
    columns         readers of columns of lists: Parquet, Arrow, data sets on disk
    tables          tables with named columns: Parquet, CSV, Arrow, data sets on disk
    labels          one label a row
    pictures        picture files, opened upright in 8 bits a channel
    texts           text files of any Unicode encoding, and numbers that were written as text
    checkpoint      the folder of results that a stopped computation continues: graphs, sweeps and studies
    marks           the list of the files that were written into such a folder, the only ones that may be removed
    settings        how two settings differ, in words
    atomic          files that appear whole or not at all
    locking         a folder that one process at a time may hold

Nothing here knows what the rows mean or what a checkpoint's parts contain; pairing rows belongs to ``data`` and
``alignment``.
"""
