'use strict';
// Refuses one mailbox and writes what comes to a file each, envelope first.
const fs = require('node:fs');
const path = require('node:path');

exports.register = function () {
    this.register_hook('rcpt', 'rcpt');
    this.register_hook('queue', 'keep');
};

exports.rcpt = function (next, connection, params) {
    if (params[0].user === 'refused') return next(DENY, 'no such mailbox');
    next(OK);
};

exports.keep = function (next, connection) {
    const folder = process.env.RECEIVE_FOLDER;
    const name = connection.transaction.uuid;
    const file = fs.createWriteStream(path.join(folder, `.${name}`));
    file.once('close', () => {
        fs.renameSync(path.join(folder, `.${name}`), path.join(folder, name));
        next(OK);
    });
    connection.transaction.message_stream.pipe(file);
};
